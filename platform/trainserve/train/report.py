"""What rank 0 tells while it trains: events.jsonl, TensorBoard, and a line a epoch in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainserve.observe.events import Event
from trainserve.observe.writer import EventWriter

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)


class Report:
    """Speaks on rank 0 (`output` given) and is silent elsewhere. `hear` is told each event, too."""

    def __init__(self, output: Path | None, hear: Callable[[Event], None] | None = None) -> None:
        self._events = None if output is None else EventWriter(output / "events.jsonl", hear=hear)
        self._board: SummaryWriter | None = None
        self._output = output
        self._mark: tuple[float, int] | None = None  # (monotonic, step) where the present rate began
        self._seconds_a_step = 0.0
        self._seconds_a_val = 0.0

    def open_board(self, from_step: int) -> None:
        """TensorBoard's files; after a resume, what an earlier generation wrote beyond `from_step` is hidden."""
        if self._output is not None:
            from torch.utils.tensorboard import SummaryWriter

            folder = str(self._output / "tensorboard")
            self._board = SummaryWriter(folder, purge_step=from_step + 1)

    def event(self, kind: Any, **fields: Any) -> None:
        if self._events is not None:
            self._events.write(kind, **fields)

    def notice(self, message: str) -> None:
        """Something the user should know, said once."""
        if self._events is not None:
            log.info("%s", message)
            self._events.write("notice", message=message)

    def steps_begin(self, step: int) -> None:
        """The clock of the training rate starts (again, after a validation) before step `step` + 1."""
        self._mark = (time.monotonic(), step)

    def val_took(self, seconds: float) -> None:
        self._seconds_a_val = seconds

    def step(
        self, step: int, *, epoch: int, loss: float, lr: float, batch: int, steps_left: int, vals_left: int
    ) -> None:
        """Progress, at most twice a second."""
        if self._events is None or not self._events.step_is_due():
            return
        now = time.monotonic()
        rate = 0.0
        if self._mark is not None and step > self._mark[1] and now > self._mark[0]:
            seconds = (now - self._mark[0]) / (step - self._mark[1])
            # Smoothed over the last reports, so that one slow step does not throw the estimate.
            old = self._seconds_a_step
            self._seconds_a_step = seconds if not old else 0.7 * old + 0.3 * seconds
            rate = batch / self._seconds_a_step
            self._mark = (now, step)
        eta = steps_left * self._seconds_a_step + vals_left * self._seconds_a_val
        fields = {"imagesPerSecond": round(rate, 1), "etaSeconds": round(eta, 1)} if rate else {}
        self._events.write("step", epoch=epoch, step=step, loss=loss, lr=lr, **fields)
        self.scalars(step, {"train/loss": loss, "train/lr": lr, **({"train/imagesPerSecond": rate} if rate else {})})

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def epoch(self, epoch: int, epochs: int, step: int, metrics: dict[str, float]) -> None:
        if self._events is None:
            return
        self._events.write("epoch", epoch=epoch, step=step, **metrics)
        self.scalars(step, {f"val/{name}": value for name, value in metrics.items()})
        log.info(
            "epoch %d/%d: training loss %.4f, validation loss %.4f, top-1 %.2f %%, top-5 %.2f %%",
            epoch, epochs, metrics["trainLoss"], metrics["valLoss"], 100 * metrics["top1"], 100 * metrics["top5"],
        )  # fmt: skip

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
        if self._events is not None:
            self._events.close()
            self._events = None
