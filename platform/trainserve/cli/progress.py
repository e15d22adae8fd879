"""What a run's events look like while it goes: a bar on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from trainserve.cli.output import printable, say
from trainserve.client.listener import Lines, Listener
from trainserve.observe import words
from trainserve.observe.events import Event


class Display(Listener):
    """Shows what happens, as it happens. A context manager, because a bar must be closed."""

    def __init__(self, *, terminal: bool | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(stderr=True)
        self._terminal = sys.stderr.isatty() if terminal is None else terminal
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._lines = Lines(self.notice, clock=clock)
        self._epochs = self._steps_per_epoch = 0
        self._top1: float | None = None  # of the newest validation

    def __enter__(self) -> Display:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
        self._bar = None

    def notice(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self._bar:
            self._bar.console.print(printable(text), highlight=False, markup=False)
        else:
            say(text)

    def pictures_checked(self, done: int, total: int) -> None:
        """A bar while pictures are looked at."""
        if not self._terminal:
            return
        if self._bar is None:
            self._open("checking pictures", total)
        if self._bar:
            self._bar.update(self._task, completed=done, detail=f"{done}/{total}")
            if done == total:
                self.close()

    def following(self, run: str) -> None:  # noqa: ARG002  the listener's signature
        """A bar until the first step is there: ranks take some seconds to import torch."""
        if self._terminal:
            self._open("starting", None)

    def event(self, event: Event) -> None:
        """Show one event."""
        if "epochs" in event:  # start and resume
            self._epochs, self._steps_per_epoch = event["epochs"], event.get("stepsPerEpoch", 0)
        if event["kind"] == "epoch":
            self._top1 = event.get("top1")
        if event["kind"] == "step" and self._terminal:
            self._step(event)
        else:
            self._lines.event(event)

    def _open(self, what: str, total: int | None) -> None:
        self.close()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(what, total=total, detail="")

    def _step(self, event: Event) -> None:
        total = self._epochs * self._steps_per_epoch
        if self._bar is None:
            self._open("starting", None)
        detail = words.step_numbers(event, total)
        self._top1 = event.get("top1", self._top1)  # of a run on a cluster each step has it
        if self._top1 is not None:
            detail += f"  top-1 {words.percent(self._top1)}"
        assert self._bar is not None
        description = f"epoch {event.get('epoch', 0)}/{self._epochs}"
        self._bar.update(
            self._task, description=description, total=total, completed=event.get("step", 0), detail=detail
        )
