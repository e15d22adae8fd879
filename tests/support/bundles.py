"""Bundles and archives of a tiny network with random weights, for tests that need no training."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from trainserve.package.bundle import write_bundle
from trainserve.package.mar import build_mar
from trainserve.spec.classifier import ServeSpec
from trainserve.train.architecture import build
from trainserve.train.checkpoint import Checkpoint
from trainserve.train.preprocess import Preprocessing, preprocess

SIZE_PX = 32


@functools.cache
def checkpoint(classes: tuple[str, ...] = ("1", "10", "2"), seed: int = 0) -> Checkpoint:
    """Random weights whose answers depend on the picture: no layer is zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build("resnet18", len(classes), "small")
        for name, parameter in model.named_parameters():
            if name.endswith("bn2.weight"):  # zero at the start of training: every block an identity
                torch.nn.init.ones_(parameter)
        torch.nn.init.normal_(model.fc.weight, std=0.3)
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # plain average
        model.train()  # batch-norm statistics of noise, so that activations keep a sane size
        with torch.no_grad():
            for _ in range(2):
                model(torch.randn(8, 3, SIZE_PX, SIZE_PX))
        model.eval()
        numbers = Preprocessing.for_size(SIZE_PX, 50_000_000)
        images = torch.stack([preprocess(picture(index), numbers) for index in range(12)])
        with torch.no_grad():  # centred logits, so that different pictures get different classes
            model.fc.bias -= model(images).mean(dim=0)
    return Checkpoint(
        weights={name: tensor.clone() for name, tensor in model.state_dict().items()},
        arch="resnet18",
        stem="small",
        image_size=SIZE_PX,
        classes=list(classes),
        preprocessing=Preprocessing.for_size(SIZE_PX, 178_956_970),
        classifier={"metadata": {"name": "digits"}, "spec": {"data": {"path": "./digits"}}},
        data_digest="0" * 64,
        step=2,
        steps_per_epoch=1,
        metrics={"top1": 0.5, "top5": 1.0, "valLoss": 1.25},
    )


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
