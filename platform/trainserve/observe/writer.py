"""Rank 0's pen for `events.jsonl`: whole lines, appended; step events at most two a second."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from trainserve.errors import EnvironmentProblem
from trainserve.machine import refusal
from trainserve.observe.events import Event, Kind, encode

STEP_INTERVAL_S = 0.5


class EventWriter:
    """Appends events to a file. Each line is one write, so a reader sees whole lines or an unfinished last one.

    `hear` is told each event that was written.
    """

    def __init__(
        self,
        path: Path,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        hear: Callable[[Event], None] | None = None,
    ) -> None:
        self._path = path
        self._descriptor = _open(path)
        self._now = now  # for stamps only: it may be set back
        self._monotonic = monotonic
        self._hear = hear
        self._next_step = -math.inf
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")  # a crash tore the last line: begin a new one

    def write(self, kind: Kind, **fields: Any) -> None:
        """Append one event, stamped with the time. Raises EnvironmentProblem (disk full)."""
        event = cast(Event, {"time": self._now(), "kind": kind, **fields})
        line = encode(event).encode()
        try:
            if os.fstat(self._descriptor).st_nlink == 0:  # somebody has removed the file: nobody would see the line
                fresh = _open(self._path)
                os.close(self._descriptor)
                self._descriptor = fresh
            written = os.write(self._descriptor, line)
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            raise EnvironmentProblem(
                f"event could not be written to {self._path}: {error.strerror or error}", hint=refusal.helps(error)
            ) from error
        if self._hear is not None:
            self._hear(event)

    def step_is_due(self) -> bool:
        """Whether half a second has passed since this was last true."""
        now = self._monotonic()
        if now < self._next_step:
            return False
        self._next_step = now + STEP_INTERVAL_S
        return True

    def close(self) -> None:
        os.fsync(self._descriptor)
        os.close(self._descriptor)


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
