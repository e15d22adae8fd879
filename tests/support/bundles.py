"""Bundles and archives of a tiny network with random weights, for tests that need no training."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from trainserve.package.bundle import write_bundle
from trainserve.package.mar import build_mar
from trainserve.spec.classifier import Classifier, ServeSpec
from trainserve.train.architecture import build
from trainserve.train.preprocess import Preprocessing, preprocess

SIZE_PX = 32


def classifier(**serve: Any) -> Classifier:
    values = {
        "metadata": {"name": "digits"},
        "spec": {"data": {"path": "./digits"}, "serve": serve},
    }
    return Classifier.model_validate(values)


@dataclass(frozen=True)
class TinyCheckpoint:
    """What a bundle needs of a checkpoint."""

    weights: Mapping[str, torch.Tensor]
    classes: tuple[str, ...]
    arch: str = "resnet18"
    stem: str = "small"
    preprocessing: Preprocessing = field(default_factory=lambda: Preprocessing.for_size(SIZE_PX, 50_000_000))
    metrics: Mapping[str, float] = field(default_factory=lambda: {"top1": 0.5, "top5": 1.0, "loss": 1.25})
    classifier: Classifier = field(default_factory=classifier)


def checkpoint(classes: tuple[str, ...] = ("1", "10", "2"), seed: int = 0) -> TinyCheckpoint:
    """Random weights whose answers depend on the picture: no layer is zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build("resnet18", len(classes), "small")
        for name, parameter in model.named_parameters():
            if name.endswith("bn2.weight"):  # zero at the start of training: every block an identity
                torch.nn.init.ones_(parameter)
        torch.nn.init.normal_(model.fc.weight, std=0.3)
        model.train()  # batch-norm statistics of noise, so that activations keep a sane size
        with torch.no_grad():
            for _ in range(20):
                model(torch.randn(16, 3, SIZE_PX, SIZE_PX))
        model.eval()
        numbers = Preprocessing.for_size(SIZE_PX, 50_000_000)
        images = torch.stack([preprocess(picture(index), numbers) for index in range(24)])
        with torch.no_grad():  # centred logits, so that different pictures get different classes
            model.fc.bias -= model(images).mean(dim=0)
    return TinyCheckpoint({name: tensor.clone() for name, tensor in model.state_dict().items()}, classes)


def picture(seed: int, size: int = 40, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A noisy picture; `seed` decides its content."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (4, 4, 3), generator=generator, dtype=torch.uint8)
    image = Image.fromarray(coarse.numpy()).resize((size, size)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def samples(folder: Path, count: int = 12) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:02d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(picture(index))
    return paths


def bundle(folder: Path, classes: tuple[str, ...] = ("1", "10", "2"), seed: int = 0) -> Path:
    """A bundle in `folder / "bundle"`."""
    return write_bundle(checkpoint(classes, seed), samples(folder / "pictures"), folder / "bundle", {"seed": seed})


def mar(folder: Path, name: str = "digits", classes: tuple[str, ...] = ("1", "10", "2"), **serve: Any) -> Path:
    """`folder / <name>.mar`, of a bundle in `folder`."""
    seed = int(serve.pop("seed", 0))
    version = str(serve.pop("version", "1.0"))
    settings = ServeSpec.model_validate(serve)
    build_mar(bundle(folder, classes, seed), folder / f"{name}.mar", name=name, version=version, serve=settings)
    return folder / f"{name}.mar"
