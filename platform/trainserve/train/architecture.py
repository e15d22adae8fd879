"""The network: torchvision's ResNets, with their state_dict keys.

Packaging copies this file byte for byte beside the weights, so it imports torch and torchvision only.
"""

from __future__ import annotations

import torchvision
from torch import nn

ARCHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
STEMS = ("imagenet", "small")


def build(arch: str, num_classes: int, stem: str) -> nn.Module:
    """A ResNet with fresh weights from torch's random state: images [B, 3, S, S] -> logits [B, num_classes].

    `stem`: "imagenet" is 7x7 stride 2 and max-pool (He et al. 2015, table 1), "small" is 3x3 stride 1 without pool
    (section 4.2, for 32 px pictures). Raises ValueError for other names.
    """
    if arch not in ARCHS:
        raise ValueError(f"arch {arch!r} is not one of {', '.join(ARCHS)}")
    if stem not in STEMS:
        raise ValueError(f"stem {stem!r} is not one of {', '.join(STEMS)}")
    # The last batch-norm of each block starts at 0, so blocks start as identities (Goyal et al. 2017, section 5.1).
    model: nn.Module = getattr(torchvision.models, arch)(num_classes=num_classes, zero_init_residual=True)
    if stem == "small":
        model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model
