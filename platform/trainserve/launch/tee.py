"""What a node writes to stdout and stderr, a second time for whoever keeps it; the first way is as it was.

The descriptors themselves are replaced, so that everything is heard: agent, ranks, their children, compiled code. The
second way never holds up the first: lines wait in a queue of bounded size, and what does not fit is counted and told.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 64 * 1024  # bytes of a line; a longer one comes in parts
MOST = 8 * 2**20  # bytes that wait
DRAIN_S = 2.0  # for the last lines, where a process that nobody knows still holds the descriptors
PREFIX = re.compile(rb"\[rank (\d{1,7})\] ")  # as `ranks.py` writes it where a node has several

Line = tuple[int | None, bytes]  # (rank, or None where the line does not say; with its newline)


class Lines:
    """Lines on their way to a keeper."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._waiting: deque[Line] = deque()
        self._bytes = 0
        self._lost = 0
        self._ended = False
        self._changed = threading.Condition()

    def put(self, rank: int | None, line: bytes) -> None:
        """Never waits for anything but the reader's hand."""
        with self._changed:
            if self._bytes + len(line) > self._most:
                self._lost += 1
                return
            self._tell_lost()
            self._waiting.append((rank, line))
            self._bytes += len(line)
            self._changed.notify()

    def take(self, patience_s: float) -> list[Line] | None:
        """Some lines, none after `patience_s`; None once there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended, patience_s)
            found = list(self._waiting)
            self._waiting.clear()
            self._bytes = 0
            return found if found or not self._ended else None

    def end(self) -> None:
        with self._changed:
            self._tell_lost()
            self._ended = True
            self._changed.notify()

    def _tell_lost(self) -> None:
        if self._lost:
            self._waiting.append((None, f"({self._lost} lines were not kept: they came too fast)\n".encode()))
            self._lost = 0


@contextmanager
def teed(lines: Lines) -> Iterator[None]:
    """Until the block ends, everything that is written goes to `lines` too."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = (os.dup(1), os.dup(2))
    source, target = os.pipe()
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    pump = threading.Thread(target=_pump, args=(source, before[1], lines), name="tee", daemon=True)
    pump.start()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(before[0], 1)
        os.dup2(before[1], 2)
        pump.join(DRAIN_S)
        lines.end()
        if not pump.is_alive():
            os.close(before[0])
            os.close(before[1])


def _pump(source: int, target: int, lines: Lines) -> None:
    with os.fdopen(source, "rb") as stream:
        while line := stream.readline(LONGEST):
            left = line
            try:
                while left:
                    left = left[os.write(target, left) :]
            except OSError:  # nobody reads it any more; the ranks must not wait for that
                left = b""
            found = PREFIX.match(line)
            whole = line if line.endswith(b"\n") else line + b"\n"
            if found:
                lines.put(int(found[1]), whole[found.end() :])
            else:
                lines.put(None, whole)
