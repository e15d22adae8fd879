"""What a run did, from its events: curves, and where it was stopped and went on. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from trainserve.observe.events import Event


@dataclass(frozen=True)
class Step:
    """One report of a training step."""

    step: int  # global optimizer steps, from 1
    epoch: float  # epochs done after it
    time: float  # unix seconds
    loss: float
    lr: float
    images_per_second: float | None  # over all processes


@dataclass(frozen=True)
class Epoch:
    """One validation. `top1` and `top5` are from 0 to 1."""

    epoch: int
    step: int
    time: float
    train_loss: float
    val_loss: float
    top1: float
    top5: float


@dataclass(frozen=True)
class Mark:
    """Something that is shown where it happened."""

    kind: Literal["stopped", "resumed", "restarted"]
    step: int
    epoch: float
    time: float
    text: str


@dataclass(frozen=True)
class History:
    """A run from its first event to its newest. Where steps were made twice, the later ones are here."""

    facts: dict[str, Any] = field(default_factory=dict)  # of the newest start or resume: observe/events.py
    steps: tuple[Step, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    marks: tuple[Mark, ...] = ()
    notices: tuple[str, ...] = ()  # each once
    seconds: float = 0.0  # with a process at work: from each start or resume to the last event before the next
    begun: float | None = None  # unix seconds
    done: dict[str, Any] | None = None

    @property
    def best(self) -> Epoch | None:
        """The epoch with the largest top-1, of equals the first, as the checkpoint is chosen."""
        return max(self.epochs, key=lambda epoch: (epoch.top1, -epoch.epoch)) if self.epochs else None


STARTS = ("start", "resume")


def history(events: Iterable[Event]) -> History:
    """Fold events in the order of the file. Events without the numbers of their kind are passed over."""
    steps: dict[int, Step] = {}
    epochs: dict[int, Epoch] = {}
    marks: list[Mark] = []
    notices: dict[str, None] = {}
    facts: dict[str, Any] = {}
    done: dict[str, Any] | None = None
    begun = segment = last = None
    seconds = 0.0
    for event in events:
        kind, time = event["kind"], float(event["time"])
        if kind in STARTS:
            if segment is not None and last is not None:
                seconds += max(0.0, last - segment)
            begun, segment = begun if begun is not None else time, time
            resumed_at = int(event.get("step", 0)) if kind == "resume" else 0
            first = not facts
            facts = {key: value for key, value in event.items() if key not in {"time", "kind", "checkpoint"}}
            # What was done beyond the checkpoint is done again, and counts then.
            steps = {number: step for number, step in steps.items() if number <= resumed_at}
            epochs = {number: epoch for number, epoch in epochs.items() if epoch.step <= resumed_at}
            done = None
            if kind == "resume":
                text = f"went on from {event.get('checkpoint', f'step {resumed_at}')}"
                marks.append(Mark("resumed", resumed_at, _epochs(resumed_at, facts), time, text))
            elif not first:
                marks.append(Mark("restarted", 0, 0.0, time, "began again from the start"))
        elif kind == "step" and {"step", "loss", "lr"} <= event.keys():
            number = event["step"]
            rate = event.get("imagesPerSecond")
            steps[number] = Step(number, _epochs(number, facts), time, event["loss"], event["lr"], rate)
        elif kind == "epoch" and {"epoch", "step", "trainLoss", "valLoss", "top1", "top5"} <= event.keys():
            epochs[event["epoch"]] = Epoch(
                event["epoch"], event["step"], time, event["trainLoss"], event["valLoss"], event["top1"], event["top5"]
            )
        elif kind == "stopped":
            at = event.get("step", 0)
            marks.append(Mark("stopped", at, _epochs(at, facts), time, event.get("message", "stopped on request")))
        elif kind == "notice" and event.get("message"):
            notices[event["message"]] = None
        elif kind == "done":
            done = dict(event)
        last = time
    if segment is not None and last is not None:
        seconds += max(0.0, last - segment)
    return History(
        facts,
        tuple(steps[number] for number in sorted(steps)),
        tuple(epochs[number] for number in sorted(epochs)),
        tuple(marks),
        tuple(notices),
        seconds,
        begun,
        done,
    )


def thinned(points: list[tuple[float, float]], limit: int) -> list[tuple[float, float]]:
    """At most `limit` points: the means of neighbours, as many in each, so that a spike is smoothed, not lost."""
    if len(points) <= limit:
        return points
    groups = [points[len(points) * k // limit : len(points) * (k + 1) // limit] for k in range(limit)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _epochs(step: int, facts: dict[str, Any]) -> float:
    return step / max(1, int(facts.get("stepsPerEpoch", 1)))
