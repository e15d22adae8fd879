"""What the ranks of a run wrote, line by line, and its events, as they come."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainserve.errors import UserError
from trainserve.kube import names
from trainserve.local.rundir import POD_FOLDER, RunDir
from trainserve.observe import events
from trainserve.observe.events import Event

POLL_S = 0.2
LONGEST_LINE = 1 << 20  # bytes; a longer one comes in parts, so that no log fills the memory


@dataclass(frozen=True)
class LogLine:
    """One line of one pod, without its newline."""

    pod: str  # `<pod>.g<N>`, N the gang's generation
    text: str

    def __str__(self) -> str:
        return f"[{self.pod}] {self.text}"


def lines(
    run: RunDir, *, follow: bool = False, rank: int | None = None, tail: int | None = None, previous: bool = False
) -> Iterator[LogLine]:
    """What the ranks wrote, oldest generation first, a pod after the other; with `rank` only this rank's pods.

    `tail`: of each log that is there only so many of the newest lines. `previous`: of generations before the newest.

    With `follow` it goes on with new lines as they come, and ends when the run does. Raises UserError for a run
    without a log and a rank that it has not, EnvironmentProblem when the run's folder is removed meanwhile.
    """
    offsets: dict[Path, int] = {}
    is_first = True
    while True:
        # Liveness is read before the files, so that nothing written before the end is missed.
        alive = run.alive()
        run.check_there()
        files = run.log_files(rank)
        if not files and not (follow and alive):
            if rank is not None and run.log_files(None):
                raise UserError(f"run {run.name!r} has no rank {rank}", hint=f"platform status {run.name}")
            raise _no_log(run, alive=alive)
        if previous:
            files = [file for file in files if _generation(file) < run.last_generation()]
            if not files and not (follow and alive):
                raise UserError(f"run {run.name!r} was started once only", hint=f"platform logs {run.name}")
        if tail is not None and is_first:
            offsets.update({file: _tail_offset(file, tail) for file in files})
        is_first = False
        for file in files:
            for line, end in _lines_of(file, offsets.get(file, 0), whole=not alive):
                offsets[file] = end
                yield LogLine(file.parent.name, line)
        if not (follow and alive):
            return
        time.sleep(POLL_S)


def run_events(run: RunDir, *, follow: bool = False) -> Iterator[Event]:
    """The run's events (observe/events.py) from its beginning; with `follow` until the run ends."""
    offset = 0
    while True:
        alive = run.alive()
        run.check_there()
        found, offset = events.read(run.events_path, offset)
        yield from found
        if not (follow and alive):
            return
        time.sleep(POLL_S)


def _generation(file: Path) -> int:
    match = POD_FOLDER.fullmatch(file.parent.name)
    return int(match["generation"]) if match else 0


def _tail_offset(file: Path, count: int) -> int:
    """Where the newest `count` lines begin, in bytes."""
    begins: deque[int] = deque([0], maxlen=count + 1)
    with file.open("rb") as stream:
        while line := stream.readline(LONGEST_LINE):
            begins.append(begins[-1] + len(line))
    return begins[0] if count else begins[-1]


def _no_log(run: RunDir, *, alive: bool) -> UserError:
    """Raises Damaged where the run's files do not say how it is."""
    state = run.state()
    helps = {
        names.SUSPENDED: f"platform resume {run.name} goes on with it",
        names.INTERRUPTED: f"platform resume {run.name} goes on with it",
        names.FAILED: f"platform why {run.name} says what is known",
    }
    hint = f"platform logs -f {run.name} waits for it" if alive else helps.get(state, f"platform status {run.name}")
    return UserError(f"run {run.name!r} has no log yet: its state is {state}", hint=hint)


def _lines_of(file: Path, offset: int, *, whole: bool) -> Iterator[tuple[str, int]]:
    """Finished lines from byte `offset` on, each with the offset after it; the unfinished last one when `whole`."""
    with file.open("rb") as stream:
        stream.seek(offset)
        while data := stream.readline(LONGEST_LINE):
            if not (data.endswith(b"\n") or whole or len(data) == LONGEST_LINE):
                return
            offset += len(data)
            yield data.rstrip(b"\r\n").decode("utf-8", "replace"), offset
