"""Ranks that make no step: found by their heartbeat, shown by their stacks, ended by their node's agent.

Each agent watches the ranks of its own node and knows nothing of the others. So it tells a rank that hangs from one
that waits for it: a waiting rank has done its part of the step and is given half as much time again, in which the agent
of the one that hangs has ended that one, and the waiting ranks have lost a peer.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainserve.errors import EXIT_STALLED
from trainserve.launch.ranks import Rank
from trainserve.launch.termination import Failure
from trainserve.machine.processes import state_of
from trainserve.observe.heartbeat import Heartbeat, Reader, stacks_path
from trainserve.observe.why import traceback as stacks

log = logging.getLogger(__name__)

POLL_S = 0.5  # between two looks
NAP_S = 5.0  # more between two looks was no waiting: this machine slept, or the agent itself was stopped
FROZEN_S = 60.0  # a process that a signal has stopped for so long is frozen, before training too
PATIENCE_S = 10.0  # at least, for a rank that waits for others
WRITE_S = 1.0  # for the stacks to be written
DUMP_S = 2.0  # the same, here and, by their own agents, of the ranks elsewhere, before this node is given up


@dataclass
class _Watched:
    rank: Rank
    reader: Reader
    beats: int = -1
    quiet_s: float = 0.0  # without a sign of progress, as far as this machine was awake
    stopped_s: float = 0.0  # in which the process was stopped by a signal


@dataclass(frozen=True)
class Stall:
    """A rank that makes no step. `seconds` without progress."""

    rank: Rank
    seconds: float
    heartbeat: Heartbeat
    frozen: bool


@dataclass
class Watchdog:
    """`look` every POLL_S; it answers with a failure when the node is to be given up."""

    ranks: Sequence[Rank]
    clock: Callable[[], float] = time.monotonic
    _watched: list[_Watched] = field(default_factory=list)
    _looked: float | None = None
    _asked: float | None = None  # when the stacks were asked for
    _stacks: dict[int, str] = field(default_factory=dict)  # by rank, once they are shown

    def __post_init__(self) -> None:
        self._watched = [_Watched(rank, Reader(rank.heartbeat)) for rank in self.ranks if rank.heartbeat is not None]

    def close(self) -> None:
        """All ranks have ended: what they wrote in their last moment is shown, too."""
        self._show_stacks()
        for watched in self._watched:
            watched.reader.close()

    def look(self) -> Failure | None:
        """How the rank that hangs failed, once one has hung for too long and the stacks are written."""
        now = self.clock()
        passed = 0.0 if self._looked is None else min(now - self._looked, NAP_S)
        self._looked = now
        late = [stall for watched in self._watched if (stall := self._judge(watched, passed)) is not None]
        if not late:
            self._asked = None
            self._stacks.clear()
            return None
        if self._asked is None:
            self._asked = now
            self._ask_for_stacks(late)
        if now - self._asked >= WRITE_S:
            self._show_stacks()
        if now - self._asked < DUMP_S:
            return None
        given_up = [stall for stall in late if not _is_patient(stall)]
        if not given_up:
            return None
        first = min(given_up, key=lambda stall: (not stall.frozen, stall.heartbeat.waits, -stall.seconds))
        main_stack = main_thread(self._stacks[first.rank.rank])
        return Failure(
            rank=first.rank.rank,
            code=EXIT_STALLED,
            time=time.time() - first.seconds,  # when it began to hang: others may have noticed before
            message=_sentence(first, main_stack),
            traceback=main_stack,
        )

    def _judge(self, watched: _Watched, passed: float) -> Stall | None:
        if watched.rank.process.poll() is not None:
            return None
        heart = watched.reader.read()
        if heart.beats != watched.beats:
            watched.beats, watched.quiet_s = heart.beats, 0.0
        else:
            watched.quiet_s += passed
        # By a signal; a debugger that holds it (state t) has somebody who knows.
        watched.stopped_s = watched.stopped_s + passed if state_of(watched.rank.process.pid) == "T" else 0.0
        if watched.stopped_s >= (heart.stall_s or FROZEN_S):
            return Stall(watched.rank, watched.stopped_s, heart, frozen=True)
        if heart.limit_s and watched.quiet_s >= heart.limit_s:
            return Stall(watched.rank, watched.quiet_s, heart, frozen=False)
        return None

    def _ask_for_stacks(self, late: Sequence[Stall]) -> None:
        for stall in late:
            log.warning("rank %d: %s; the stacks of all ranks follow", stall.rank.rank, _how(stall))
        for watched in self._watched:
            # Only those that have said so: to others the signal would be the end.
            assert watched.rank.heartbeat is not None
            if watched.reader.read().answers and watched.rank.process.poll() is None:
                stacks_path(watched.rank.heartbeat).write_bytes(b"")  # those of an earlier, shorter stall
                watched.rank.process.send_signal(signal.SIGUSR1)

    def _show_stacks(self) -> None:
        """Print the stacks of all ranks into the log, once, where they were asked for."""
        if self._asked is None or self._stacks:
            return
        for watched in self._watched:
            assert watched.rank.heartbeat is not None
            text = self._stacks[watched.rank.rank] = _read(stacks_path(watched.rank.heartbeat))
            mark = f"[rank {watched.rank.rank}] " if len(self._watched) > 1 else ""
            lines = text.splitlines() or ["no stacks: the process does not answer"]
            print("\n".join(f"{mark}{line}" for line in lines), flush=True)  # noqa: T201  (the log of the pod)


def main_thread(text: str) -> str:
    """Of faulthandler's stacks of all threads the main thread's: the oldest, which comes last."""
    blocks = text.split("\n\n")
    threads = [block for block in blocks if "(most recent call first)" in block]
    return threads[-1].strip() if threads else ""


def _is_patient(stall: Stall) -> bool:
    """Whether it waits for another rank, whose own agent is to find it first."""
    limit_s = stall.heartbeat.limit_s
    return not stall.frozen and stall.heartbeat.waits and stall.seconds < limit_s + max(PATIENCE_S, limit_s / 2)


def _how(stall: Stall) -> str:
    if stall.frozen:
        return f"is frozen: a signal has stopped its process for {stall.seconds:.0f} s"
    what = stall.heartbeat.what or "training"
    waiting = ", waiting for the other ranks" if stall.heartbeat.waits else ""
    return f"no progress for {stall.seconds:.0f} s in {what} after step {stall.heartbeat.step}{waiting}"


def _sentence(stall: Stall, main_stack: str) -> str:
    if "torch/utils/data/dataloader.py" in main_stack:
        return f"{_how(stall)} (it waits for a data worker)"
    frames = stacks.frames(main_stack)
    own = [frame for frame in frames if frame.own]
    at = next(iter([*own[-1:], *frames[-1:]]), None)
    where = f" ({Path(at.file).name}:{at.line} in {at.function})" if at is not None else ""
    return _how(stall) + where


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended, or never wrote
        return ""
