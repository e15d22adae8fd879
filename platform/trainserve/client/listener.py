"""What a caller of the Client hears while a call goes on. Nothing here prints by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from trainserve.machine.usage import size_words
from trainserve.observe import words
from trainserve.observe.events import Event


class Listener:
    """Hears nothing; override what you want to hear. Called in the thread that called the Client."""

    def notice(self, text: str) -> None:
        """One sentence for a person."""

    def pictures_checked(self, done: int, total: int) -> None:
        """So many of the pictures have been looked at; at times, and at the end."""

    def downloading(self, file: str, done: int, total: int) -> None:
        """So many bytes of a file are here; `total` is 0 where it is not known."""

    def uploading(self, name: str, done: int, total: int) -> None:
        """So many bytes of a data set are where it is pushed to, those that were there before included."""

    def following(self, run: str) -> None:
        """The run's processes are started, and its events follow."""

    def event(self, event: Event) -> None:
        """One event of a run that is followed (observe/events.py)."""


class Lines(Listener):
    """Everything as plain lines: `Client(Lines(print))`."""

    def __init__(
        self, write: Callable[[str], object], *, step_every_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._step_every_s = step_every_s
        self._clock = clock
        self._epochs = self._steps = 0
        self._next_step = 0.0
        self._files: set[str] = set()

    def notice(self, text: str) -> None:
        """One sentence."""
        self._write(text)

    def downloading(self, file: str, done: int, total: int) -> None:  # noqa: ARG002
        """One line a file, at its begin."""
        if file not in self._files:
            self._files.add(file)
            self._write(f"downloading {file}" + (f", {size_words(total)}" if total else ""))

    def uploading(self, name: str, done: int, total: int) -> None:
        """A line every `step_every_s` seconds."""
        if self._clock() >= self._next_step:
            self._next_step = self._clock() + self._step_every_s
            share = 100 * done / total if total else 100.0
            self._write(f"uploading {name}: {share:.0f} % of {size_words(total)}")

    def event(self, event: Event) -> None:
        """One event; of the steps one every `step_every_s` seconds."""
        if "epochs" in event:  # start and resume
            self._epochs = event["epochs"]
            self._steps = event["epochs"] * event.get("stepsPerEpoch", 0)
        if event["kind"] == "step":
            if self._clock() >= self._next_step:
                self._next_step = self._clock() + self._step_every_s
                self._write(words.step_line(event, self._epochs, self._steps))
            return
        line = words.event_line(event, self._epochs)
        if line is not None:
            self._write(line)
