"""The command `platform`, which `python -m trainserve` is too."""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # what `signal` is made of, without 10 ms of imports
import sys


def main() -> None:
    """Run the command line; never returns."""
    # While modules are imported Ctrl-C would end in a traceback, or be lost: until the verb is there it just ends us.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from trainserve.cli.main import main as run

        run()
    except KeyboardInterrupt:  # while another error was being told
        sys.exit(130)


if __name__ == "__main__":
    main()
