"""What can be seen of a network: where it looks (Grad-CAM), its first filters, and what these make of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.utils import make_grid

GRID_COLUMNS = 8


def grad_cam(model: nn.Module, images: torch.Tensor, classes: Sequence[int]) -> np.ndarray:
    """Where `layer4` of a ResNet speaks for a class: images [B, 3, S, S], a class each -> float32 [B, h, w], 0 to 1.

    All zero where nothing speaks for it. Source: Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2, divided by the
    largest value of the picture. The model is in evaluation mode and stays as it was, gradients included.
    """
    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:  # noqa: ARG001
        kept.append(output)

    layer = model.get_submodule("layer4")
    hook = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            # Weights need no gradient; the map does, and it has one when the images have.
            logits = model(images.detach().requires_grad_(True))
            chosen = logits[torch.arange(len(images)), torch.as_tensor(list(classes))].sum()
            (gradient,) = torch.autograd.grad(chosen, kept[0])
    finally:
        hook.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # alpha of equation 1
    cam = (weights * kept[0]).sum(dim=1).relu().detach()  # equation 2
    largest = cam.amax(dim=(1, 2), keepdim=True)
    found: np.ndarray = (cam / largest.clamp(min=1e-12)).nan_to_num().cpu().numpy()  # weights may be broken
    return found


def filters(model: nn.Module) -> Image.Image:
    """The first convolution's kernels [64, 3, k, k], each stretched to the full range, as a grid."""
    weight = model.get_submodule("conv1").weight
    assert isinstance(weight, torch.Tensor)
    return _grid(weight.detach().cpu(), enlarge=max(1, 28 // weight.shape[-1]))


@torch.inference_mode()
def feature_maps(model: nn.Module, image: torch.Tensor) -> Image.Image:
    """What the first convolution makes of one image [3, S, S]: its 64 maps, each stretched to the full range."""
    maps = model.get_submodule("conv1")(image.unsqueeze(0))[0].unsqueeze(1).cpu()  # [64, 1, h, w]
    side = int(maps.shape[-1])
    if side > 64:
        maps = nn.functional.interpolate(maps, size=(64, 64), mode="bilinear", antialias=True)
    return _grid(maps, enlarge=max(1, 56 // side))


def _grid(tiles: torch.Tensor, *, enlarge: int) -> Image.Image:
    """Tiles [N, C, h, w] in columns of GRID_COLUMNS, grey between them."""
    large = tiles.float().repeat_interleave(enlarge, dim=2).repeat_interleave(enlarge, dim=3)
    grid = make_grid(large, nrow=GRID_COLUMNS, padding=2, normalize=True, scale_each=True, pad_value=0.5)
    pixels = (grid * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels)


def seen(image: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """What the network sees, as a picture again: normalised float32 [3, S, S] -> RGB."""
    scale, shift = (torch.tensor(list(numbers)).view(3, 1, 1) for numbers in (std, mean))
    pixels = ((image * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
