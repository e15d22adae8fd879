"""SIGTERM and a closed terminal end a verb in order, as Ctrl-C does."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TextIO

from trainserve.cli.output import silence
from trainserve.client.follow import Hangup

_terminals: list[TextIO] = []  # streams that are nobody's once the terminal is closed: it cannot be asked then


def end_as_ctrl_c() -> None:
    """From now on SIGTERM raises KeyboardInterrupt, and SIGHUP Hangup; where they are ignored (nohup) they stay so."""
    _terminals[:] = [stream for stream in (sys.stdout, sys.stderr) if stream.isatty()]
    for number, handler in ((signal.SIGTERM, _interrupt), (signal.SIGHUP, _hang_up)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def end_tidily() -> None:
    """From now on SIGTERM ends a verb as Ctrl-C does: what it was writing goes, and no process of it stays."""
    from trainserve.cli.main import interrupt

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _hang_up(_number: int, _frame: FrameType | None) -> None:
    silence(*_terminals)  # what is said goes on to where stdout and stderr were sent, if that is a file
    raise Hangup
