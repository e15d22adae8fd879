"""How large the networks are: counted on the network itself, on torch's meta device, which computes no numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

BYTES_A_NUMBER = 4  # float32


@dataclass(frozen=True)
class Size:
    """One network at one picture size. Bytes are of float32 numbers."""

    arch: str
    parameters: int  # trained numbers
    multiply_adds: int  # of the answer for one picture: convolutions and the last layer, as is usual
    weights_bytes: int  # parameters and batch-norm statistics: the file weights.safetensors
    checkpoint_bytes: int  # weights and SGD's momentum
    activation_bytes: int  # kept for the backward pass of one training picture; less with automatic mixed precision


class Stored(NamedTuple):
    """Bytes of a network's files."""

    weights: int
    checkpoint: int


def stored_bytes(model: torch.nn.Module) -> Stored:
    """How large its weights, and a checkpoint with SGD's momentum, are."""
    parameters = sum(tensor.numel() for tensor in model.parameters())
    weights = BYTES_A_NUMBER * (parameters + sum(tensor.numel() for tensor in model.buffers()))
    return Stored(weights, weights + BYTES_A_NUMBER * parameters)


def measure(arch: str, *, image_size: int = 224, classes: int = 1000, stem: str = "imagenet") -> Size:
    """Count one network. Raises ValueError for an unknown `arch` or `stem`."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from trainserve.train.architecture import build

    with torch.device("meta"):
        model = build(arch, classes, stem)
        picture = torch.zeros(1, 3, image_size, image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(picture)
    parameters = sum(tensor.numel() for tensor in model.parameters())
    stored = stored_bytes(model)
    return Size(
        arch,
        parameters,
        counter.get_total_flops() // 2,  # a multiply-add is two floating-point operations
        weights_bytes=stored.weights,
        checkpoint_bytes=stored.checkpoint,
        activation_bytes=_kept_for_backward(model, image_size),
    )


def measure_all(*, image_size: int = 224, classes: int = 1000, stem: str = "imagenet") -> list[Size]:
    """Every network, the smallest first."""
    from trainserve.train.architecture import ARCHS

    return [measure(arch, image_size=image_size, classes=classes, stem=stem) for arch in ARCHS]


def _kept_for_backward(model: torch.nn.Module, image_size: int) -> int:
    """Bytes a picture that autograd keeps beside the weights, each storage once."""
    import torch

    pictures = 2  # batch-norm wants more than one value a channel, also where the last map has one pixel
    own = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that its number is not given to another one
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = model.train()(torch.zeros(pictures, 3, image_size, image_size, device="meta"))
    del answer
    return sum(int(storage.nbytes()) for storage in kept.values()) // pictures
