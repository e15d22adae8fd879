"""Small pictures as `data:` URLs: JPEG, or PNG where a picture has few pixels and each should be seen."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from trainserve.evaluate.report.content import Picture
from trainserve.train.preprocess import PictureError, Preprocessing, decode

SIDE_PX = 112  # of a thumbnail, at twice the size at which a phone shows it
FEW_PX = 64  # up to this side every pixel is shown
QUALITY = 82


def thumbnail(path: Path, preprocessing: Preprocessing, alt: str) -> Picture | None:
    """A picture file, upright, its longer side at most SIDE_PX; None where it cannot be read (any more)."""
    try:
        image = decode(path.read_bytes(), preprocessing)
    except (OSError, PictureError):
        return None
    return embedded(image, alt)


def embedded(image: Image.Image, alt: str, side_px: int = SIDE_PX) -> Picture:
    """An RGB or grey picture, made smaller where its longer side is over `side_px`, never larger."""
    longer = max(image.size)
    if longer > side_px:
        scale = side_px / longer
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS)
    few = longer <= FEW_PX
    buffer = BytesIO()
    image.info = {}  # no colour profile, no place where it was taken
    if few:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/{'png' if few else 'jpeg'};base64,{text}", *image.size, alt, few)


# Anchors of matplotlib's "inferno" (CC0): ordered by lightness, so it reads without colour too.
_HEAT = ((0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39))


def overlay(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """`image` [S x S] in grey, `heat` float [h, w] from 0 to 1 over it: strong where the heat is."""
    scaled = Image.fromarray(np.clip(heat * 255, 0, 255).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    values = np.asarray(scaled, np.float32) / 255
    anchors = np.array(_HEAT, np.float32)
    place = np.linspace(0, 1, len(anchors))
    colours = np.stack([np.interp(values, place, anchors[:, channel]) for channel in range(3)], axis=-1)
    grey = np.asarray(image.convert("L"), np.float32)[..., None]
    strength = (0.25 + 0.5 * values)[..., None]
    return Image.fromarray((grey * (1 - strength) + colours * strength).astype(np.uint8))
