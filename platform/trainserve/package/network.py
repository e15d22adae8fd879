"""A bundle as a network in this process: built by the code that the bundle carries, with its weights."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from trainserve.package.bundle import Bundle
from trainserve.package.description import ARCHITECTURE, GOLDEN, PREPROCESS, WEIGHTS

if TYPE_CHECKING:
    import torch


def network_of(bundle: Bundle) -> torch.nn.Module:
    """Eager, float32, on the CPU, in evaluation mode: normalised pictures [B, 3, S, S] -> logits [B, classes]."""
    import torch
    from safetensors.torch import load_file

    model = bundle.description
    architecture = _module(bundle.path / ARCHITECTURE)
    with torch.device("meta"):  # without memory and random weights, which would only be replaced
        network: torch.nn.Module = architecture.build(model.arch, len(model.classes), model.stem)
    network.load_state_dict(load_file(bundle.path / WEIGHTS), strict=True, assign=True)
    return network.float().eval()


def tensor_of(bundle: Bundle) -> Callable[[bytes], torch.Tensor]:
    """What the network sees of a picture's bytes: normalised float32 [3, S, S]; ValueError says why there is none."""
    code = _module(bundle.path / PREPROCESS)
    numbers = code.Preprocessing.from_dict(bundle.description.preprocessing)

    def tensor(data: bytes) -> torch.Tensor:
        found: torch.Tensor = code.preprocess(data, numbers)
        return found

    return tensor


def golden_images(bundle: Bundle) -> torch.Tensor:
    """The bundle's golden pictures as the network sees them: [pictures, 3, S, S]."""
    import torch

    tensor = tensor_of(bundle)
    return torch.stack([tensor((bundle.path / GOLDEN / item.file).read_bytes()) for item in bundle.golden])


def _module(file: Path) -> ModuleType:
    """The module in a bundle's file, whose digest is verified, under a name of its own: two bundles may differ.

    Run from its bytes, because an import would leave a __pycache__ in the bundle.
    """
    source = file.read_bytes()
    name = f"trainserve_bundle_{file.stem}_{hashlib.sha256(source).hexdigest()[:16]}"
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses look their module up
    exec(compile(source, str(file), "exec"), module.__dict__)  # noqa: S102  what serving it runs
    return module
