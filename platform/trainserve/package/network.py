"""A bundle as a network in this process: built by the code that the bundle carries, with its weights."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from trainserve.package.bundle import Bundle
from trainserve.package.description import ARCHITECTURE, GOLDEN, PREPROCESS, WEIGHTS

if TYPE_CHECKING:
    import torch


def network_of(bundle: Bundle) -> torch.nn.Module:
    """Eager, float32, on the CPU, in evaluation mode: normalised pictures [B, 3, S, S] -> logits [B, classes]."""
    from safetensors.torch import load_file

    model = bundle.description
    network: torch.nn.Module = _code(bundle, ARCHITECTURE).build(model.arch, len(model.classes), model.stem)
    network.load_state_dict(load_file(bundle.path / WEIGHTS), strict=True)
    return network.float().eval()


def golden_images(bundle: Bundle) -> torch.Tensor:
    """The bundle's golden pictures as the network sees them: [pictures, 3, S, S]."""
    import torch

    code = _code(bundle, PREPROCESS)
    numbers = code.Preprocessing.from_dict(bundle.description.preprocessing)
    pictures = [(bundle.path / GOLDEN / item.file).read_bytes() for item in bundle.golden]
    return torch.stack([code.preprocess(picture, numbers) for picture in pictures])


def _code(bundle: Bundle, name: str) -> ModuleType:
    """A module of the bundle, whose digest `read_bundle` has verified, under a name of its own."""
    file = bundle.path / name
    title = f"{file.stem}_{hashlib.sha256(str(file.absolute()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(title, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[title] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
