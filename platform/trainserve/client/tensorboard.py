"""TensorBoard over the curves of runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from trainserve.client.listener import Listener
from trainserve.errors import UserError
from trainserve.local import rundir
from trainserve.local.rundir import RunDir
from trainserve.serve import tensorboard
from trainserve.serve.tensorboard import Board


def board(words: Sequence[str], listener: Listener, *, port: int = 0) -> AbstractContextManager[Board]:
    """TensorBoard over these runs (all that have curves where none is named) for the length of a `with` block.

    Raises UserError where there is no such run, none has curves, or `port` is none; else as `tensorboard.running`.
    """
    if not 0 <= port <= 65_535:
        raise UserError(f"--port {port}: a port is a number from 1 to 65535, or 0 for a free one")
    runs = [rundir.open_run(word) for word in dict.fromkeys(words)] or rundir.all_runs()
    shown = [run for run in runs if _has_curves(run) or (words and run.alive())]
    if not shown:
        names = ", ".join(run.name for run in runs) or "there is no run"
        raise UserError(f"no curves to show: {names}", hint="a run writes them from its first step on")
    for run in runs:
        if words and not _has_curves(run):
            listener.notice(f"{run.name} has no curves" + (" yet; they will appear" if run in shown else ""))
    return tensorboard.running({run.name: run.output / "tensorboard" for run in shown}, port)


def _has_curves(run: RunDir) -> bool:
    return any((run.output / "tensorboard").glob("events.out.tfevents.*"))
