"""SGD and its learning rate, the latter a pure function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainserve.spec.classifier import TrainSpec


def lr_at(step: int, train: TrainSpec, steps_per_epoch: int) -> float:
    """Learning rate of optimizer step `step`, counted from 0.

    Linear warm-up from lr / warm-up steps to lr, then: cosine to 0 at the last step's end (Loshchilov and Hutter 2017,
    without restarts), times 0.1 every `step_epochs` epochs, or constant.
    """
    warmup = round(train.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return train.lr * (step + 1) / warmup
    if train.schedule == "cosine":
        total = train.epochs * steps_per_epoch
        return train.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
    if train.schedule == "step":
        return train.lr * 0.1 ** (step // (train.step_epochs * steps_per_epoch))
    return train.lr


def sgd(model: nn.Module, train: TrainSpec) -> torch.optim.SGD:
    """SGD with Nesterov momentum; tensors of one dimension (batch-norm and bias) do not decay."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": train.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=train.lr, momentum=train.momentum, nesterov=train.momentum > 0, fused=True)
