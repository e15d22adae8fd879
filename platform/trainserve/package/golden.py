"""Golden pictures: a bundle's own test of whether serving answers as training did.

They travel in every archive, and every start of a server asks with one of them, so they are small whatever the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from trainserve.errors import DataError
from trainserve.package.description import Golden
from trainserve.spec.classifier import ServeSpec

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from trainserve.train.preprocess import Preprocessing

PICTURES = 8
LARGEST_BYTES = 256 * 1024  # less than serve.maxUploadMib can be
LARGEST_PX = 1_000_000  # width x height


def write_golden(
    folder: Path,
    samples: Sequence[Path],
    model: torch.nn.Module,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    serve: ServeSpec,
) -> list[Golden]:
    """Write up to PICTURES of the samples to `folder`, and compute their logits from the bytes written.

    `model` is in evaluation mode, on the CPU. Raises DataError when no sample can be read.
    """
    import torch

    from trainserve.train.preprocess import preprocess

    golden: list[Golden] = []
    for suffix, data in small_pictures(samples, preprocessing, min(LARGEST_PX, serve.max_pixels)):
        name = f"{len(golden):02d}{suffix}"
        (folder / name).write_bytes(data)
        with torch.inference_mode():
            logits = model(preprocess(data, preprocessing).unsqueeze(0))[0]
        winner = classes[int(logits.argmax())]
        golden.append(Golden.model_validate({"file": name, "logits": logits.tolist(), "class": winner}))
    return golden


def small_pictures(
    samples: Sequence[Path], preprocessing: Preprocessing, largest_px: int
) -> Iterator[tuple[str, bytes]]:
    """Up to PICTURES pictures of at most LARGEST_BYTES and `largest_px` pixels, as (suffix, bytes).

    Samples that are small go first, byte for byte, because they are what users send; where they are too few, others
    are scaled down and become PNGs. Unreadable samples are passed over; raises DataError when no other is there.
    """
    from trainserve.train.preprocess import PictureError, decode

    narrow = replace(preprocessing, max_pixels=min(largest_px, preprocessing.max_pixels))
    found, rest = 0, []
    for sample in spread(samples):
        try:
            if sample.stat().st_size > LARGEST_BYTES:
                rest.append(sample)
                continue
            data = sample.read_bytes()
            decode(data, narrow)
        except (OSError, PictureError):  # unreadable, or with too many pixels: the second look tells
            rest.append(sample)
            continue
        yield _suffix(sample), data
        found += 1
        if found == PICTURES:
            return
    reasons: list[str] = []
    for sample in rest:
        try:
            image = decode(sample.read_bytes(), preprocessing)
        except (OSError, PictureError) as error:  # with skipBad such pictures are known and left out
            reasons.append(f"{sample}: {error}")
            continue
        yield ".png", _reduced(image, 2 * preprocessing.resize, largest_px)
        found += 1
        if found == PICTURES:
            return
    if not found:
        first = reasons[0] if reasons else "no sample was given"
        raise DataError(f"no picture for the bundle's self-test can be read; {first}")


def spread(samples: Sequence[Path]) -> list[Path]:
    """All samples, those at even distances first: sorted by class, these cover many."""
    count = min(PICTURES, len(samples))
    first = [samples[index * len(samples) // count] for index in range(count)]
    chosen = set(first)
    return first + [sample for sample in samples if sample not in chosen]


def _reduced(image: Image.Image, shorter_px: int, largest_px: int) -> bytes:
    """A PNG of the picture: its shorter side at most `shorter_px`, and below the limits."""
    width, height = image.size
    scale = min(1.0, shorter_px / min(width, height), sqrt(largest_px / (width * height)))
    while True:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = image.resize(size)
        small.info = {}  # no colour profile or transparency of the original
        buffer = BytesIO()
        small.save(buffer, "PNG")
        if buffer.tell() <= LARGEST_BYTES and size[0] * size[1] <= largest_px:
            return buffer.getvalue()
        scale /= sqrt(2)  # half the pixels


def _suffix(sample: Path) -> str:
    suffix = sample.suffix.lower()
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() else ".picture"
