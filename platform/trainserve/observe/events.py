"""The events of a run: `output/events.jsonl`, one JSON object a line, written by rank 0 and by nobody else.

Every line has `time` (unix seconds) and `kind`; the rest of the fields depend on the kind, as typed below. Readers pass
over an unfinished last line. A resumed run appends; steps after the resumed checkpoint then occur again, and the later
line counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, get_type_hints

Kind = Literal["start", "resume", "step", "epoch", "checkpoint", "notice", "stopped", "done"]


class Event(TypedDict):
    """One line. All sizes are over the whole job, not one process."""

    time: float
    kind: Kind
    # start
    job: NotRequired[str]
    arch: NotRequired[str]
    stem: NotRequired[str]
    imageSize: NotRequired[int]  # px
    classes: NotRequired[int]
    trainSamples: NotRequired[int]
    valSamples: NotRequired[int]
    epochs: NotRequired[int]
    stepsPerEpoch: NotRequired[int]
    worldSize: NotRequired[int]
    batchSize: NotRequired[int]  # global
    device: NotRequired[str]
    # start of a generation that goes on from a checkpoint (resume); also checkpoint
    checkpoint: NotRequired[str]
    # step and epoch: `epoch` counts from 1, `step` counts global optimizer steps from 1
    epoch: NotRequired[int]
    step: NotRequired[int]
    loss: NotRequired[float]
    lr: NotRequired[float]
    imagesPerSecond: NotRequired[float]
    etaSeconds: NotRequired[float]
    # epoch and done: on the validation pictures, each counted once; top1 and top5 from 0 to 1
    trainLoss: NotRequired[float]
    trainTop1: NotRequired[float]  # of the answers while it trained, to augmented pictures
    valLoss: NotRequired[float]
    top1: NotRequired[float]
    top5: NotRequired[float]
    # notice and stopped
    message: NotRequired[str]
    # done
    seconds: NotRequired[float]
    bundle: NotRequired[str]
    archive: NotRequired[str]


def encode(event: Event) -> str:
    """One line, with its newline."""
    return json.dumps(event, separators=(",", ":"), allow_nan=False) + "\n"


def read(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Whole lines from byte `offset` on, and the offset to go on from. A missing file has no events.

    A file that is shorter than `offset` is a new one, made after somebody removed the old: it is read from its start.
    """
    try:
        with path.open("rb") as file:
            if offset > os.fstat(file.fileno()).st_size:
                offset = 0
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole = data.rfind(b"\n") + 1
    return list(_parse(data[:whole].splitlines())), offset + whole


def ends(path: Path, head: int = 1 << 16, tail: int = 1 << 17) -> list[Event]:
    """The first and the last events of a file, at most `head` and `tail` bytes of them: enough for a summary.

    A day of training writes some 25 MB; a list of runs must not read all of it. Of the steps, which are most of them,
    only the last is given.
    """
    try:
        with path.open("rb") as file:
            first = file.read(head)
            size = file.seek(0, 2)
            start = max(len(first), size - tail)
            file.seek(start)
            last = file.read()
    except FileNotFoundError:
        return []
    if start > len(first):
        first = first[: first.rfind(b"\n") + 1]
        last = last[last.find(b"\n") + 1 :]
    data = first + last
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    steps = [number for number, line in enumerate(lines) if _STEP in line]
    passed_over = set(steps[:-1])
    return list(_parse(line for number, line in enumerate(lines) if number not in passed_over))


_STEP = b'"kind":"step"'  # as `encode` writes it


def _parse(lines: Iterable[bytes]) -> Iterator[Event]:
    for line in lines:
        try:
            event: Any = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError):
            continue  # torn by a crash in mid-write; the writer began a new line after it
        if not isinstance(event, dict):
            continue
        known = {field: value for field, value in event.items() if value is not None}
        if "kind" in known and "time" in known and all(_as_typed(field, value) for field, value in known.items()):
            yield known  # type: ignore[misc]


def _as_typed(field: str, value: Any) -> bool:
    """Whether a field has the type that Event gives it; there may be more fields than it knows."""
    return isinstance(value, _TYPES.get(field, object)) and not isinstance(value, bool)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


# Event's fields, as what `isinstance` takes.
_KINDS: dict[Any, type | tuple[type, ...]] = {float: (int, float), int: int}
_TYPES = {field: _KINDS.get(hint, str) for field, hint in get_type_hints(Event).items()}
