from __future__ import annotations

import pytest
import torch
import torchvision

from trainserve.train.architecture import build


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_keys_are_torchvisions(stem):
    assert list(build("resnet18", 3, stem).state_dict()) == list(torchvision.models.resnet18().state_dict())


@pytest.mark.parametrize(("stem", "size"), [("imagenet", 64), ("small", 16), ("small", 8)])
def test_logits_have_one_column_a_class(stem, size):
    model = build("resnet18", 7, stem).eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, size, size)).shape == (2, 7)


def test_the_small_stem_keeps_the_resolution():
    model = build("resnet18", 3, "small")
    assert model.maxpool(model.conv1(torch.zeros(1, 3, 16, 16))).shape[-2:] == (16, 16)


@pytest.mark.parametrize(("arch", "stem"), [("vgg16", "small"), ("resnet18", "tiny")])
def test_other_names_are_refused(arch, stem):
    with pytest.raises(ValueError, match="is not one of"):
        build(arch, 2, stem)
