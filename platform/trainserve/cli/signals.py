"""SIGTERM and a closed terminal end a verb in order, as Ctrl-C does."""

from __future__ import annotations

import signal
from types import FrameType

from trainserve.client.follow import Hangup


def end_as_ctrl_c() -> None:
    """From now on SIGTERM raises KeyboardInterrupt, and SIGHUP Hangup; where they are ignored (nohup) they stay so."""
    for number, handler in ((signal.SIGTERM, _interrupt), (signal.SIGHUP, _hang_up)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _hang_up(_number: int, _frame: FrameType | None) -> None:
    raise Hangup
