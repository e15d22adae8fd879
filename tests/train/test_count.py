from __future__ import annotations

import pytest
import torch

from trainserve.train.architecture import build
from trainserve.train.count import measure, measure_all


@pytest.mark.slow
def test_the_networks_have_the_sizes_that_are_published() -> None:
    """He et al. 2015, table 1, and torchvision's documentation: 224 px, 1000 classes."""
    found = {size.arch: (size.parameters, round(size.multiply_adds / 1e9, 1)) for size in measure_all()}
    assert found == {
        "resnet18": (11_689_512, 1.8),
        "resnet34": (21_797_672, 3.7),
        "resnet50": (25_557_032, 4.1),
        "resnet101": (44_549_160, 7.8),
        "resnet152": (60_192_808, 11.5),
    }


def test_weights_and_checkpoint_are_those_of_the_network() -> None:
    size = measure("resnet18", image_size=32, classes=10, stem="small")
    model = build("resnet18", 10, "small")
    state = sum(tensor.numel() for tensor in model.state_dict().values())
    assert size.parameters == sum(tensor.numel() for tensor in model.parameters())
    assert size.weights_bytes == 4 * state
    assert size.checkpoint_bytes - size.weights_bytes == 4 * size.parameters


def test_activations_are_what_real_tensors_keep() -> None:
    """Counted on the meta device; here with numbers, each storage once by its address."""
    size, pictures = measure("resnet18", image_size=32, classes=10, stem="small"), 2
    model = build("resnet18", 10, "small")
    own = {tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = model(torch.zeros(pictures, 3, 32, 32))
    assert answer.shape == (pictures, 10)
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / pictures
    assert size.activation_bytes == pytest.approx(real, rel=0.01)


def test_more_pixels_are_more_work_and_the_same_weights() -> None:
    small, large = (measure("resnet18", image_size=px) for px in (128, 256))
    assert small.weights_bytes == large.weights_bytes
    assert large.multiply_adds > 3.9 * small.multiply_adds
    assert large.activation_bytes > 3.9 * small.activation_bytes
