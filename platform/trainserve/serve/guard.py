"""Run a command and see to it that nothing of it is left: `python -m trainserve.serve.guard FD FOLDER -- COMMAND`.

FD is the read end of a pipe whose write end only the serving process holds: its end of file, however that process ends
(SIGKILL too), stops the command: SIGTERM, GRACE_S seconds, then SIGKILL to its process group. When the command ends,
whatever remains of its group is killed and FOLDER is removed. The first line on stdout is the command's process id.

Standard library only: this process lives as long as the server and starts in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE_S = 8.0
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Returns the command's exit code, 128 + n when signal n ended it."""
    lifeline, folder, dashes, *command = arguments
    assert dashes == "--"
    descriptor = int(lifeline)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _wake)
    child = subprocess.Popen(
        command,
        stdout=sys.stderr.fileno(),  # the JVM says some of its errors there; our stdout has no reader after one line
        start_new_session=True,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - one thread
    )
    print(child.pid, flush=True)  # noqa: T201 - the protocol with the parent
    deadline: float | None = None
    while not _ended(child.pid):
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        watched = [wake_read] if deadline is not None else [wake_read, descriptor]
        ready, _, _ = select.select(watched, [], [], timeout)
        signals = os.read(wake_read, 1024) if wake_read in ready else b""
        told_to_stop = descriptor in ready or any(number != signal.SIGCHLD for number in signals)
        if deadline is None and told_to_stop:
            os.kill(child.pid, signal.SIGTERM)
            deadline = time.monotonic() + GRACE_S
        elif deadline is not None and time.monotonic() >= deadline:
            _kill_group(child.pid)
    # The command is not reaped yet, so its id, which is the group's too, still belongs to it.
    _kill_group(child.pid)
    code = child.wait()
    shutil.rmtree(Path(folder), ignore_errors=True)
    return code if code >= 0 else 128 - code


def _wake(number: int, frame: object) -> None:
    """Nothing to do here: the wake-up descriptor carries the number to the loop."""


def _die_with_parent() -> None:
    """Linux: the command gets SIGKILL when this guard is killed. TorchServe's workers end when their frontend does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        os.killpg(leader, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
