"""What a run's events look like while it goes: a bar on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from trainserve.cli.output import duration, percent, say
from trainserve.machine import cgroup
from trainserve.observe.events import Event
from trainserve.spec.classifier import DataSpec
from trainserve.train import imagecheck
from trainserve.train.imagecheck import BadPicture
from trainserve.train.imagefolder import Listing

LINE_EVERY_S = 10.0  # a plain line at most this often within an epoch


def epoch_line(event: Event, epochs: int) -> str:
    """One finished epoch, in one line."""
    return (
        f"epoch {event.get('epoch', 0)}/{epochs}  train loss {event.get('trainLoss', 0):.4f}  "
        f"val loss {event.get('valLoss', 0):.4f}  top-1 {percent(event.get('top1'))}  "
        f"top-5 {percent(event.get('top5'))}"
    )


def step_line(event: Event, epochs: int, steps: int) -> str:
    """One step, in one line."""
    return (
        f"epoch {event.get('epoch', 0)}/{epochs}  step {event.get('step', 0)}/{steps}  "
        f"loss {event.get('loss', 0):.4f}  {event.get('imagesPerSecond', 0):.0f} images/s  "
        f"ETA {duration(event.get('etaSeconds'))}"
    )


class Display:
    """Shows events one by one. A context manager, because a bar must be closed."""

    def __init__(self, *, terminal: bool | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        console = Console(stderr=True)
        self._bar = (
            Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[detail]}"),
                console=console,
                transient=True,
            )
            if (sys.stderr.isatty() if terminal is None else terminal)
            else None
        )
        self._task: TaskID | None = None
        self._clock = clock
        self._epochs = self._steps_per_epoch = 0
        self._next_line = 0.0
        self._top1: float | None = None  # of the newest validation

    def __enter__(self) -> Display:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None, detail="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def line(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            say(text)

    def event(self, event: Event) -> None:
        """Show one event."""
        if "epochs" in event:  # start and resume
            self._epochs, self._steps_per_epoch = event["epochs"], event.get("stepsPerEpoch", 0)
        match event["kind"]:
            case "start":
                self.line(
                    f"training {event.get('arch')} ({event.get('stem')} stem, {event.get('imageSize')} px) on "
                    f"{event.get('trainSamples')} pictures of {event.get('classes')} classes, validating on "
                    f"{event.get('valSamples')}; {event.get('worldSize')} processes, global batch "
                    f"{event.get('batchSize')}, {event.get('device')}"
                )
            case "resume":
                self.line(
                    f"going on from {event.get('checkpoint')} (epoch {event.get('epoch')}, step {event.get('step')})"
                )
            case "notice":
                self.line(event.get("message", ""))
            case "stopped":
                self.line(f"stopped at step {event.get('step')}: {event.get('message', 'asked to stop')}")
            case "epoch":
                self._top1 = event.get("top1")
                self.line(epoch_line(event, self._epochs))
            case "step":
                self._step(event)
            case "checkpoint" | "done":
                pass  # the bar and the closing words show what these say

    def _step(self, event: Event) -> None:
        total = self._epochs * self._steps_per_epoch
        if self._bar and self._task is not None:
            detail = (
                f"step {event.get('step', 0)}/{total}  loss {event.get('loss', 0):.4f}  "
                f"{event.get('imagesPerSecond', 0):.0f} images/s  ETA {duration(event.get('etaSeconds'))}"
            )
            description = f"epoch {event.get('epoch', 0)}/{self._epochs}"
            if self._top1 is not None:
                detail += f"  top-1 {percent(self._top1)}"
            self._bar.update(
                self._task, description=description, total=total, completed=event.get("step", 0), detail=detail
            )
        elif self._clock() >= self._next_line:
            self._next_line = self._clock() + LINE_EVERY_S
            self.line(step_line(event, self._epochs, total))


def check_pictures(listing: Listing, data: DataSpec) -> list[BadPicture]:
    """Check every picture before anything starts, with a bar where there is a terminal and enough to wait for."""
    total = len(listing.train) + len(listing.val)
    threads = cgroup.cores()
    with Progress(
        TextColumn("checking pictures"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("", total=total)
        return imagecheck.check(listing, data, threads=threads, progress=lambda done: bar.update(task, completed=done))
