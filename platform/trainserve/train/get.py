"""Example data sets as folders of pictures, without a download."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from trainserve.errors import EnvironmentProblem, UserError, not_installed
from trainserve.machine.files import new_folder, write_json
from trainserve.train.folders import MARKER

DIGITS_LICENCE = (
    "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC BY 4.0"
)


@dataclass(frozen=True)
class Summary:
    """A data set on disk."""

    path: Path
    pictures: int
    classes: int
    digest: str  # SHA-256 of names and bytes of all pictures
    licence: str
    reused: bool  # it was there before, and whole


def get_digits(destination: Path) -> Summary:
    """The 1,797 scanned digits inside scikit-learn as 8 x 8 grey PNG files, one folder a class.

    The folder appears whole or not at all; one that is there and whole is used again. Raises UserError when
    `destination` holds something else, EnvironmentProblem without scikit-learn or room on the disk.
    """
    if destination.exists():
        return _existing(destination)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise not_installed("scikit-learn, which holds the digits,", "train") from error
    found = load_digits()
    try:
        with new_folder(destination, replace=False) as root:
            for number, (values, label) in enumerate(zip(found.images, found.target, strict=True)):
                folder = root / str(label)
                folder.mkdir(exist_ok=True)
                grey = (values * 255 / 16).round().astype("uint8")  # 0..16 to 0..255
                Image.fromarray(grey).save(folder / f"{number:04d}.png")
            summary = Summary(destination, len(found.target), 10, _digest(root), DIGITS_LICENCE, reused=False)
            write_json(root / MARKER, {"name": "digits", "digest": summary.digest, "licence": DIGITS_LICENCE})
    except OSError as error:
        raise EnvironmentProblem(f"{destination} could not be written: {error.strerror or error}") from error
    return summary


def _existing(destination: Path) -> Summary:
    try:
        wanted = json.loads((destination / MARKER).read_bytes())["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{destination} exists and is not the digits data set", hint="choose another folder, or remove this one"
        ) from error
    digest = _digest(destination)
    if digest != wanted:
        raise UserError(f"the digits in {destination} were changed", hint="remove the folder to get them anew")
    pictures = len(list(destination.glob("*/*.png")))
    return Summary(destination, pictures, 10, digest, DIGITS_LICENCE, reused=True)


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(root.glob("*/*.png")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()
