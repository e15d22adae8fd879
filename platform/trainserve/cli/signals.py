"""SIGTERM ends a verb in order, as Ctrl-C does."""

from __future__ import annotations

import signal
from types import FrameType


def term_as_ctrl_c() -> None:
    """From now on SIGTERM raises KeyboardInterrupt; where it is ignored it stays so."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
