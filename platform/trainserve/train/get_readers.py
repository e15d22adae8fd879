"""What is in the files of a published data set: pictures, one by one. No pickle; no name from an archive is a path."""

from __future__ import annotations

import gzip
import re
import struct
import tarfile
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from trainserve.errors import DataError, not_installed
from trainserve.train.get_sources import Source

LARGEST = 32 * 2**20  # bytes of a member of an archive that is read
TRAIN, VAL, TEST = "train", "val", "test"

Files = Mapping[str, Path]


class Picture(NamedTuple):
    """One picture of a data set."""

    part: str  # train, val, test; "" where the data set is not divided
    label: str  # class, in words
    name: str  # of its file: letters, digits and _ only, with its ending
    data: bytes


def read(source: Source, files: Files) -> Iterator[Picture]:
    """All pictures. Raises DataError when a file is not as the data set's authors describe it."""
    return READERS[source.name](source, files)


def _digits(source: Source, files: Files) -> Iterator[Picture]:  # noqa: ARG001
    """The test part of UCI's data set, as scikit-learn has it: 8 x 8 grey values from 0 to 16."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise not_installed("scikit-learn, which holds the digits,", "train") from error
    found = load_digits()
    for number, (values, label) in enumerate(zip(found.images, found.target, strict=True)):
        grey = (values * 255 / 16).round().astype("uint8")
        yield Picture("", str(label), f"{number:04d}.png", _png(Image.fromarray(grey)))


def _fashion_mnist(source: Source, files: Files) -> Iterator[Picture]:
    """IDX files, http://yann.lecun.com/exdb/mnist: sizes as big-endian 32-bit integers, then bytes, row by row."""
    for part, stem in ((TRAIN, "train"), (VAL, "t10k")):
        (height, width), pixels = _idx(files[f"{stem}-images-idx3-ubyte.gz"], 3)
        _, labels = _idx(files[f"{stem}-labels-idx1-ubyte.gz"], 1)
        size = height * width
        if len(pixels) != len(labels) * size:
            raise DataError(f"{source.name}: {len(pixels) // size} pictures and {len(labels)} labels in {stem}")
        for number, label in enumerate(labels):
            image = Image.frombytes("L", (width, height), pixels[number * size : (number + 1) * size])
            yield Picture(part, _word(source, label), f"{number:05d}.png", _png(image))


def _idx(path: Path, dimensions: int) -> tuple[tuple[int, ...], bytes]:
    """Sizes after the first, and all bytes."""
    with gzip.open(path) as stream:
        head = stream.read(4 + 4 * dimensions)
        if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
            raise DataError(f"{path} is no IDX file of bytes with {dimensions} dimensions")
        count, *sizes = struct.unpack(f">{dimensions}I", head[4:])
        wanted = count
        for size in sizes:
            wanted *= size
        if wanted > 2**30:
            raise DataError(f"{path} says it holds {wanted:,} bytes")
        values = stream.read(wanted + 1)  # not one more than it says, whatever follows
    if len(values) != wanted:
        raise DataError(f"{path} holds {len(values):,} values, its head says {wanted:,}")
    return tuple(sizes), values


def _cifar10(source: Source, files: Files) -> Iterator[Picture]:
    """https://www.cs.toronto.edu/~kriz/cifar.html, binary version: a label's byte, 1024 red, 1024 green, 1024 blue."""
    pattern = re.compile(r"cifar-10-batches-bin/(data_batch_[1-5]|test_batch)\.bin")
    for batch, data in _members(files["cifar-10-binary.tar.gz"], pattern):
        stem = batch[1]
        if len(data) % 3073:
            raise DataError(f"{stem}.bin of {source.name} has {len(data):,} bytes, no multiple of 3073")
        part = VAL if stem == "test_batch" else TRAIN
        for number in range(len(data) // 3073):
            record = data[number * 3073 : (number + 1) * 3073]
            bands = [Image.frombytes("L", (32, 32), record[1 + 1024 * band : 1025 + 1024 * band]) for band in range(3)]
            name = f"{stem}_{number:05d}.png"
            yield Picture(part, _word(source, record[0]), name, _png(Image.merge("RGB", bands)))


def _flowers102(source: Source, files: Files) -> Iterator[Picture]:
    """JPEGs; their labels (1 to 102) and parts in two MATLAB files, by the number in the picture's name."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise not_installed("scipy, which reads the labels,", "train") from error
    from torchvision.datasets import Flowers102

    labels = loadmat(files["imagelabels.mat"])["labels"].ravel().tolist()
    parts = loadmat(files["setid.mat"])
    part_of = {
        int(number): part
        for part, field in ((TRAIN, "trnid"), (VAL, "valid"), (TEST, "tstid"))
        for number in parts[field].ravel()
    }
    words = list(Flowers102.classes)
    for match, data in _members(files["102flowers.tgz"], re.compile(r"jpg/image_(\d{5})\.jpg")):
        number = int(match[1])
        if number not in part_of or not 1 <= number <= len(labels) or not 1 <= labels[number - 1] <= len(words):
            raise DataError(f"{source.name}: image_{match[1]}.jpg has no label or is in no part")
        yield Picture(part_of[number], words[labels[number - 1] - 1], f"image_{match[1]}.jpg", data)


def _imagenette(source: Source, files: Files) -> Iterator[Picture]:
    """JPEGs in `imagenette2*/train|val/<WordNet id>/`."""
    pattern = re.compile(r"imagenette2(?:-160|-320)?/(train|val)/(n\d{8})/(\w+)\.JPEG")
    words = dict(zip(source.wordnet, source.classes, strict=True))
    for match, data in _members(files[source.files[0].name], pattern):
        if match[2] not in words:
            raise DataError(f"{source.name}: {match[2]} is none of its classes")
        yield Picture(match[1], words[match[2]], f"{match[3]}.JPEG", data)


def _members(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], bytes]]:
    """The plain files of a .tar.gz whose whole name fits, one after the other; nothing is written to the disk.

    Links, devices and other names are passed over. Raises DataError for a member larger than any picture.
    """
    try:
        with gzip.open(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
            for member in archive:
                match = pattern.fullmatch(member.name.removeprefix("./"))
                if match is None or not member.isreg():
                    continue
                if member.size > LARGEST:
                    raise DataError(f"{path}: {match[0]} has {member.size:,} bytes")
                stream = archive.extractfile(member)
                assert stream is not None  # a plain file
                yield match, stream.read()
            while unpacked.read(2**20):  # the digest at the very end is checked, too
                pass
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is no whole .tar.gz: {error}") from error


def _word(source: Source, label: int) -> str:
    if label >= len(source.classes):
        raise DataError(f"{source.name}: label {label} is none of its {len(source.classes)} classes")
    return source.classes[label]


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


READERS: dict[str, Callable[[Source, Files], Iterator[Picture]]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "flowers102": _flowers102,
    "imagenette": _imagenette,
}
