"""All ranks agree at which step to stop, and on the loss, almost without waiting.

A signal reaches one rank; a rank that stopped alone would leave the others hanging in their next collective. So after
each step the ranks sum a tiny tensor in the background, and read the sum before the next step, when its pictures have
been prepared: a stop is honoured at the end of the step in which it came. Validation does the same between batches.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from trainserve.observe.heartbeat import Pulse
from trainserve.train.data import Batch
from trainserve.train.distributed import Group


class StopRequest:
    """Set by SIGTERM and SIGINT, while installed."""

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> None:
        """From now on the two signals ask for a checkpoint instead of ending the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def uninstall(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)

    @contextmanager
    def nothing_to_lose(self) -> Iterator[None]:
        """In this block the two signals end the process at once, one that came before it too, if they are installed."""
        if signal.getsignal(signal.SIGTERM) != self._ask:
            yield
            return
        self.uninstall()
        if self.requested:
            os.kill(os.getpid(), signal.SIGTERM)
        yield
        self.install()

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True


@dataclass(frozen=True)
class Verdict:
    """What all ranks know of one step."""

    stop: bool  # some rank was asked to stop
    loss: float  # mean over the ranks


class Agreement:
    """`post` at every step, `result` before the next `post`; the same calls in the same order on all ranks."""

    def __init__(self, group: Group, pulse: Pulse | None = None) -> None:
        self._group = group
        self.pulse = pulse or Pulse()
        self._pending: tuple[Any, torch.Tensor] | None = None

    def post(self, stop: bool, loss: float) -> None:
        """Tell the others, in the background."""
        tensor = torch.tensor([float(stop), loss], dtype=torch.float64)
        work = None
        if self._group.world_size > 1:
            work = dist.all_reduce(tensor, group=self._group.control, async_op=True)
        self._pending = work, tensor

    def result(self) -> Verdict | None:
        """What the last `post` led to; None if there was none. Raises RuntimeError at once when a rank is gone."""
        if self._pending is None:
            return None
        work, tensor = self._pending
        self._pending = None
        if work is not None:
            self.pulse.waits()
            work.wait()
            self.pulse.works()
        stop, loss = tensor.tolist()
        return Verdict(stop > 0, loss / self._group.world_size)


def agreed(batches: Iterable[Batch], rounds: int, agreement: Agreement, stop: StopRequest) -> Iterator[Batch]:
    """This rank's batches, until one of the ranks is asked to stop: then none has more.

    `rounds` is the largest number of batches of any rank, so that all agree equally often. At the end, and only there,
    `agreement` has a result: with one all batches were given, without one the ranks stopped before.
    """
    iterator = iter(batches)
    batch = next(iterator, None)
    for left in reversed(range(max(1, rounds))):
        if batch is not None:
            yield batch
        agreement.post(stop.requested, 0.0)
        agreement.pulse.beat("a validation")
        if not left:
            return
        batch = next(iterator, None)
        verdict = agreement.result()
        if verdict is not None and verdict.stop:
            return
