"""Grad-CAM, filters and feature maps of a real, small ResNet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from support import bundles
from trainserve.evaluate.report.network import feature_maps, filters, grad_cam, seen
from trainserve.evaluate.report.picture import FEW_PX, SIDE_PX, embedded, overlay
from trainserve.train.architecture import build


@pytest.fixture(scope="module")
def model() -> nn.Module:
    checkpoint = bundles.checkpoint()
    network = build(checkpoint.arch, len(checkpoint.classes), checkpoint.stem)
    network.load_state_dict(checkpoint.weights)
    return network.eval()


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_grad_cam_is_the_class_activation_map_where_pooling_and_one_layer_follow(model: nn.Module) -> None:
    """Selvaraju et al. 2017, section 3.1: for global average pooling and a linear layer it generalises CAM."""
    kept: list[torch.Tensor] = []
    hook = model.get_submodule("layer4").register_forward_hook(lambda *parts: kept.append(parts[2]))
    with torch.no_grad():
        model(images())
    hook.remove()
    classes = [2, 0, 1]
    weight = model.get_submodule("fc").weight
    assert isinstance(weight, torch.Tensor)
    expected = torch.einsum("bk,bkhw->bhw", weight.detach()[classes], kept[0]).relu()
    expected /= expected.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    found = grad_cam(model, images(), classes)
    assert found.shape == (3, 4, 4)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert found.max() == pytest.approx(1)


def test_grad_cam_leaves_the_network_as_it_was(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode(False):
        grad_cam(model, images(), [0, 1, 2])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.get_submodule("layer4")._forward_hooks
    assert not model.training


def test_grids_have_a_tile_for_each_filter(model: nn.Module) -> None:
    # 3 x 3 pixels 9 times enlarged and 2 between, 8 a row and a column; the maps of 32 px are as they are.
    assert filters(model).size == (8 * 29 + 2, 8 * 29 + 2)
    assert feature_maps(model, images()[0]).size == (8 * 34 + 2, 8 * 34 + 2)
    assert len(np.unique(np.asarray(feature_maps(model, images()[0])))) > 50


def test_what_the_network_sees_is_the_picture_again() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    normalised = (tensor - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert np.array_equal(np.asarray(seen(normalised, mean, std)), pixels)


def test_thumbnails_are_small_and_say_nothing_of_where_they_were_taken() -> None:
    large = embedded(Image.effect_noise((900, 300), 80).convert("RGB"), "noise")
    assert (large.width, large.height) == (SIDE_PX, round(SIDE_PX / 3))
    assert large.url.startswith("data:image/jpeg;base64,")
    assert not large.pixelated
    assert len(large.url) < 12_000
    few = embedded(Image.new("RGB", (8, 8)), "few")
    assert few.url.startswith("data:image/png;base64,")
    assert (few.width, few.pixelated) == (8, True)
    assert embedded(Image.new("RGB", (FEW_PX + 1, 8)), "more").pixelated is False


def test_the_overlay_is_strong_where_the_heat_is() -> None:
    grey = Image.new("RGB", (64, 64), (90, 90, 90))
    heat = np.zeros((4, 4), np.float32)
    heat[3, 3] = 1
    pixels = np.asarray(overlay(grey, heat)).astype(int)
    assert pixels[60, 60, 0] - pixels[60, 60, 2] > 80  # yellow
    assert pixels[4, 4].max() < 90  # dark
