"""Logging of the long-running parts: one line a fact, to stderr or a file; stdout stays free for data."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

FORMAT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"


def setup(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send the package's log lines to `stream` (default stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger("trainserve")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
