"""Between the objects of a running training and a Checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainserve.train import checkpoint as checkpoints
from trainserve.train.checkpoint import Checkpoint
from trainserve.train.distributed import Group
from trainserve.train.metrics import Sums
from trainserve.train.recipe import Recipe


@dataclass
class Progress:
    """Where the run is: the same on all ranks, apart from `sums`, which hold this rank's share."""

    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    validated: bool = True  # False: at the end of an epoch, before its validation
    sums: Sums = field(default_factory=Sums)  # of the unfinished epoch
    seconds: float = 0.0  # in earlier generations


@dataclass
class Trainer:
    """The objects that a checkpoint is made of."""

    model: nn.Module  # not wrapped: what is saved
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


def snapshot(trainer: Trainer, recipe: Recipe, progress: Progress, sums: torch.Tensor, seconds: float) -> Checkpoint:
    """A checkpoint of this moment; `sums` are the unfinished epoch's over all ranks."""
    model = recipe.classifier.spec.model
    return Checkpoint(
        weights={name: tensor.detach().cpu().contiguous() for name, tensor in trainer.model.state_dict().items()},
        arch=model.arch,
        stem=recipe.stem,
        image_size=recipe.preprocessing.image_size,
        classes=recipe.classes,
        preprocessing=recipe.preprocessing,
        classifier=recipe.classifier.model_dump(mode="json", by_alias=True),
        data_digest=recipe.listing.digest,
        step=progress.step,
        steps_per_epoch=recipe.steps_per_epoch,
        metrics=dict(progress.metrics),
        best=progress.best,
        validated=progress.validated,
        epoch_sums=sums.tolist(),
        seconds=seconds,
        optimizer=trainer.optimizer.state_dict(),
        scaler=trainer.scaler.state_dict(),
        rng=torch.get_rng_state(),
    )


def restore(trainer: Trainer, recipe: Recipe, group: Group, output: Path, notice: Callable[[str], None]) -> Progress:
    """Go on from the newest whole checkpoint, if any: rank 0 reads it, the others get it by broadcast.

    Raises SpecError when the checkpoint is of another network, class list, batch or data set.
    """
    found = checkpoints.latest(output, notice) if group.is_first else None
    if found is not None:
        wanted = {
            "arch": recipe.classifier.spec.model.arch,
            "stem": recipe.stem,
            "image_size": recipe.preprocessing.image_size,
            "classes": recipe.classes,
            "batch_size": recipe.train.batch_size,
            "seed": recipe.train.seed,
            "data_digest": recipe.listing.digest,
        }
        checkpoints.check_matches(found, wanted)
        trainer.model.load_state_dict(found.weights)
        trainer.optimizer.load_state_dict(found.optimizer)
        trainer.scaler.load_state_dict(found.scaler)
        if found.rng is not None:
            torch.set_rng_state(found.rng)
    small = None
    if found is not None:
        small = {
            "step": found.step, "metrics": found.metrics, "best": found.best, "seconds": found.seconds,
            "validated": found.validated, "scaler": found.scaler, "momentum": bool(found.optimizer["state"]),
        }  # fmt: skip
    small = group.share("resume", small)
    for tensor in trainer.model.state_dict().values():
        group.broadcast(tensor)
    if small is None:
        return Progress()
    if small["momentum"]:
        _share_momentum(trainer.optimizer, group)
    trainer.scaler.load_state_dict(small["scaler"])
    progress = Progress(
        small["step"], small["metrics"], small["best"], validated=small["validated"], seconds=small["seconds"]
    )
    if found is not None and found.epoch_sums:  # rank 0 takes them all: the sum over ranks is what counts
        progress.sums = Sums(torch.tensor(found.epoch_sums, dtype=torch.float64))
    return progress


def _share_momentum(optimizer: torch.optim.Optimizer, group: Group) -> None:
    for parameters in (param_group["params"] for param_group in optimizer.param_groups):
        for parameter in parameters:
            state = optimizer.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            group.broadcast(state["momentum_buffer"])
