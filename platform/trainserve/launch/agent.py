"""The agent of one node in a job of fixed size: start the ranks, wait, say which one failed first and how.

What torchrun does, with two differences that a controller needs: the exit code is the failing rank's own, and the
termination message names it. Imports no torch: four agents on a laptop would cost 2 GB and seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainserve.errors import EXIT_OK, EXIT_PEER_LOST, EXIT_SIGTERM
from trainserve.kube.names import ENV_CUDA_DEVICES, ENV_POD_DIR, STOP_GRACE_S
from trainserve.launch import layout, lifeline, ranks, termination
from trainserve.launch.ranks import Rank
from trainserve.launch.termination import Failure
from trainserve.launch.watchdog import POLL_S, Watchdog
from trainserve.machine import cgroup

log = logging.getLogger(__name__)

FORWARDED = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Patience:
    """How long the agent waits for ranks once one has failed, in seconds."""

    victim_s: float = 2.0  # after a lost peer: the real failure may take a moment longer to end
    grace_s: float = 30.0  # between SIGTERM and SIGKILL for the others
    checkpoint_s: float = STOP_GRACE_S  # the same when the first ended with 143: the others write their checkpoint


@dataclass
class _Outcome:
    """Failures in the order seen; `asked` are those that came after this agent had sent SIGTERM."""

    own: list[Failure] = field(default_factory=list)
    asked: list[Failure] = field(default_factory=list)


def run(program: Sequence[str], patience: Patience | None = None) -> int:
    """Run `program` (`-m module args...` or `script.py args...`) on all ranks of this node; returns the exit code.

    0 when all ranks ended with 0, else the code of the rank that failed first, 128 + n for one that signal n killed.
    SIGTERM and SIGINT go on to every rank; from then on the agent waits as long as they take, because how long that
    may be is the kubelet's business (terminationGracePeriodSeconds). Raises UserError for a wrong environment.
    """
    lifeline.watch()
    cores = cgroup.cores()
    place = layout.layout(os.environ, cores=cores, gpus=visible_gpus)
    killed_before = cgroup.oom_kills() or 0
    # On a laptop in the pod's own folder, so that an agent that is killed leaves nothing elsewhere.
    home = os.environ.get(ENV_POD_DIR)
    with tempfile.TemporaryDirectory(prefix="trainserve-agent-", dir=home) as scratch, _wakeups() as wakeup:
        running = ranks.start(place, program, os.environ, threads=place.threads(cores), scratch=Path(scratch))
        watchdog = Watchdog(running)
        outcome = _wait(running, wakeup, patience or Patience(), watchdog)
        watchdog.close()
        ranks.drain(running)
        first = termination.first(outcome.own, outcome.asked)
        if first is None:
            return EXIT_OK
        oom_kills = max(0, (cgroup.oom_kills() or 0) - killed_before)
        log.error("%s", termination.cause(first, oom_kills))
        termination.write(termination.encode(first, oom_kills, termination.peak_mib()))
        return first.code


def _wait(running: Sequence[Rank], wakeup: _Wakeups, patience: Patience, watchdog: Watchdog) -> _Outcome:
    """Until every rank has ended: forward signals, and bring the others down once one has failed or hangs."""
    outcome = _Outcome()
    alive = list(running)
    forwarded = False
    term_at = kill_at = float("inf")  # monotonic; inf: not planned
    asked = False
    while alive:
        now = time.monotonic()
        if now >= term_at and not asked:
            asked = True
            _signal(alive, signal.SIGTERM)
        if now >= kill_at:
            kill_at = float("inf")
            log.error("rank %s did not end: SIGKILL", ", ".join(str(rank.rank) for rank in alive))
            _signal(alive, signal.SIGKILL)
        watching = not (forwarded or asked)
        stalled = watchdog.look() if watching else None
        if stalled is not None:
            log.error("rank %d hangs: all ranks of this node are ended", stalled.rank)
            outcome.own.append(stalled)
            asked = True
            _signal(alive, signal.SIGKILL)
        until = min(term_at if not asked else kill_at, kill_at) - now
        for number in wakeup.wait(min(until, POLL_S) if watching else until):
            forwarded = True
            term_at = kill_at = float("inf")  # somebody outside decides from here on
            _signal(alive, number)
        for rank in [rank for rank in alive if rank.process.poll() is not None]:
            alive.remove(rank)
            code = rank.process.returncode
            if code == 0:
                continue
            what = termination.failure(rank.rank, code, time.time(), rank.error_file)
            (outcome.asked if asked else outcome.own).append(what)
        if outcome.own and not forwarded and not asked:
            only_victims = all(what.code == EXIT_PEER_LOST for what in outcome.own)
            delay = patience.victim_s if only_victims else 0.0
            term_at = min(term_at, time.monotonic() + delay)
            checkpointing = all(what.code == EXIT_SIGTERM for what in outcome.own)
            kill_at = term_at + (patience.checkpoint_s if checkpointing else patience.grace_s)
    return outcome


def _signal(alive: Sequence[Rank], number: int) -> None:
    for rank in alive:
        rank.process.send_signal(number)


def visible_gpus() -> int:
    """NVIDIA GPUs this process may use, without a driver library: CUDA_VISIBLE_DEVICES, else the device files."""
    chosen = os.environ.get(ENV_CUDA_DEVICES)
    if chosen is not None:
        devices = [part.strip() for part in chosen.split(",")]
        # CUDA's rule: the list ends at the first entry that is no device.
        return next((n for n, part in enumerate(devices) if part in {"", "-1", "NoDevFiles"}), len(devices))
    return sum(1 for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit())


class _Wakeups:
    """Signals as bytes of a pipe, so that one select waits for a signal, a rank's end and a time limit."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def wait(self, timeout_s: float) -> list[int]:
        """Signals to forward, after at most `timeout_s` (inf: no limit); [] when only a child or the time moved."""
        timeout = None if timeout_s == float("inf") else max(0.0, timeout_s)
        if not select.select([self._fd], [], [], timeout)[0]:
            return []
        return [number for number in os.read(self._fd, 256) if number in FORWARDED]


@contextlib.contextmanager
def _wakeups() -> Iterator[_Wakeups]:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    before = {number: signal.signal(number, lambda *_: None) for number in (*FORWARDED, signal.SIGCHLD)}
    previous = signal.set_wakeup_fd(write_end)
    try:
        yield _Wakeups(read_end)
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_end)
        os.close(write_end)
