"""What one picture is: format, size, mode, and digests that find it again elsewhere. Imports no torch."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from trainserve.train import imagecheck
from trainserve.train.preprocess import open_picture

SIXTEEN_BIT = ("I", "F")  # modes begin so


class Facts(NamedTuple):
    """Of one picture. Without a header that can be read, `format` is "" and the numbers are 0."""

    fault: str | None  # why training cannot use it, in training's own words
    format: str = ""
    mode: str = ""
    width: int = 0  # px, as stored
    height: int = 0
    animated: bool = False
    transparent: bool = False
    content: bytes = b""  # digest of the file; empty for an unreadable one
    pixels: bytes = b""  # digest of the decoded picture (a large JPEG's at a part of its size)


def look_at(path: Path, mode: imagecheck.Mode, max_pixels: int) -> Facts:
    """Read one picture once; its fault is what `imagecheck.fault` says."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Facts(error.strerror or str(error))
    seen: list[bytes] = []

    def see(image: Image.Image) -> None:
        size = f"{image.width} {image.height}\0".encode()
        seen.append(hashlib.blake2b(size + image.tobytes(), digest_size=16).digest())

    facts = _header(data)
    pixels = facts.width * facts.height
    fault = imagecheck.fault(path, mode, max_pixels, data, pixels, see)
    if fault is not None:
        return facts._replace(fault=fault)
    content = hashlib.blake2b(data, digest_size=16).digest()
    return facts._replace(content=content, pixels=seen[0] if seen else b"")


def _header(data: bytes) -> Facts:
    try:
        with open_picture(BytesIO(data)) as image:
            return Facts(
                None,
                image.format or "",
                image.mode,
                image.width,
                image.height,
                animated=bool(getattr(image, "is_animated", False)),
                transparent=image.has_transparency_data,
            )
    except Exception:  # decoders raise anything; `fault` says it in words
        return Facts(None)
