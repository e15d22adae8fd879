"""A rank's sign of life: a few numbers in a file that the rank and its node's agent both map into memory.

Writing costs about a microsecond, needs no thread, and stands still with the rank, however it hangs. The agent compares
what it reads with its own clock (launch/watchdog.py): nothing here depends on two clocks that agree.
"""

from __future__ import annotations

import mmap
import statistics
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STALL_FLOOR_S = 60.0  # a step is never called stalled before
STALL_STEPS = 20  # times the median step
LONG_TIMES = 10  # how much longer than a step what is no step may take: a checkpoint, the first pictures of an epoch
PEER_TIMEOUT_S = 600.0  # the longest that a rank waits for another: names.ENV_PEER_TIMEOUT
_REMEMBERED = 64  # steps whose durations the median is of
_EVERY = 16  # steps between two looks at the median
_FORMAT = struct.Struct("<QQdd??30s")  # beats, step, limit_s, stall_s, waits, answers SIGUSR1, what
SIZE = mmap.PAGESIZE


@dataclass(frozen=True)
class Heartbeat:
    """What a rank last said. `limit_s` 0: not watched now."""

    beats: int = 0  # grows with every step, and with whatever else shows that it gets on
    step: int = 0
    limit_s: float = 0.0  # longest time until the next beat
    stall_s: float = 0.0  # the same for a step; 0 before training
    waits: bool = False  # for other ranks: it has done its own part
    answers: bool = False  # SIGUSR1 writes its stacks into `stacks_path`
    what: str = ""


def stacks_path(path: Path) -> Path:
    """Where the rank with this heartbeat writes the stacks of its threads."""
    return path.with_name(path.name + ".stacks")


def create(path: Path) -> None:
    """The agent's part: an empty file, with its blocks, so that no write to the mapping can find the disk full."""
    path.write_bytes(bytes(SIZE))


class Reader:
    """The agent's side."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ)

    def read(self) -> Heartbeat:
        """The newest; a rank that is writing just now may give a mixture, which the next look corrects."""
        beats, step, limit_s, stall_s, waits, answers, what = _FORMAT.unpack_from(self._map)
        return Heartbeat(beats, step, limit_s, stall_s, waits, answers, what.rstrip(b"\0").decode("utf-8", "replace"))

    def close(self) -> None:
        self._map.close()


class Pulse:
    """The rank's side; without a path everything is accepted and goes nowhere.

    `stall_s` is the longest time of a step that its user allows; None: 20 times the median step, at least 60 s, and
    never more than `peer_s`, which is how long other ranks would wait.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        stall_s: float | None = None,
        peer_s: float = PEER_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._map: mmap.mmap | None = None
        if path is not None:
            with path.open("r+b") as file:
                self._map = mmap.mmap(file.fileno(), SIZE)
        self._own_s, self._peer_s, self._clock = stall_s, peer_s, clock
        self._stall_s = stall_s if stall_s is not None else STALL_FLOOR_S
        self._beats = self._step = 0
        self._limit_s = 0.0
        self._waits = self._answers = False
        self._what = b""
        self._durations: deque[float] = deque(maxlen=_REMEMBERED)
        self._began: float | None = None  # the present step, where it is known

    @property
    def stall_s(self) -> float:
        """The longest time of a step, as of now."""
        return self._stall_s

    @property
    def long_s(self) -> float:
        """The longest time of anything else."""
        return max(self._stall_s, min(LONG_TIMES * self._stall_s, self._peer_s))

    def answers(self) -> None:
        """From now on SIGUSR1 writes this process's stacks."""
        self._answers = True
        self._write()

    def expect(self, what: str) -> None:
        """Something begins that takes longer than a step, up to the next `step` or `beat`."""
        self._limit_s, self._what, self._began = self.long_s, what.encode()[:30], None
        self._beat()

    def step(self, step: int) -> None:
        """A step is done, and the next begins."""
        now = self._clock()
        if self._began is not None:
            self._durations.append(now - self._began)
            if self._own_s is None and (step % _EVERY == 0 or len(self._durations) < _EVERY):
                median = statistics.median(self._durations)
                self._stall_s = max(STALL_FLOOR_S, min(STALL_STEPS * median, self._peer_s))
        self._began, self._step = now, step
        self.beat("training")

    def beat(self, what: str) -> None:
        """Something as short as a step is done, and the next of its kind begins."""
        self._limit_s, self._what = self._stall_s, what.encode()[:30]
        self._beat()

    def waits(self) -> None:
        """This rank has done its part and waits for the others. No sign of progress."""
        self._waits = True
        self._write()

    def works(self) -> None:
        """The others have done theirs. No sign of progress either."""
        self._waits = False
        self._write()

    def rest(self) -> None:
        """What comes now may take as long as it likes."""
        self._limit_s, self._what, self._began = 0.0, b"", None
        self._beat()

    def _beat(self) -> None:
        self._beats += 1
        self._waits = False
        self._write()

    def _write(self) -> None:
        if self._map is not None:
            _FORMAT.pack_into(
                self._map, 0, self._beats, self._step, self._limit_s, self._stall_s, self._waits, self._answers,
                self._what,
            )  # fmt: skip


def of_environment(named: str | None) -> Path | None:
    """The file that the agent has made for this rank, as its environment names it; None where no agent watches."""
    path = Path(named) if named else None
    return path if path is not None and path.is_file() else None
