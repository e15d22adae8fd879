"""Whatever the data, golden pictures are small enough to be served."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from support import bundles
from trainserve.errors import DataError
from trainserve.package import golden
from trainserve.package.bundle import read_bundle, write_bundle
from trainserve.package.golden import LARGEST_BYTES, PICTURES, small_pictures
from trainserve.train import architecture
from trainserve.train.preprocess import Preprocessing, preprocess

NUMBERS = Preprocessing.for_size(32, 178_956_970)


def noise(path: Path, width: int, height: int, **options: object) -> Path:
    """A picture that no format makes much smaller."""
    Image.frombytes("RGB", (width, height), os.urandom(width * height * 3)).save(path, **options)
    return path


def plain(path: Path, width: int, height: int) -> Path:
    """Many pixels, few bytes."""
    Image.new("RGB", (width, height), (200, 30, 90)).save(path)
    return path


def size_px(data: bytes) -> int:
    width, height = Image.open(io.BytesIO(data)).size
    return width * height


def test_small_samples_are_taken_byte_for_byte_and_before_large_ones(tmp_path: Path) -> None:
    large = [noise(tmp_path / f"large{index}.bmp", 400, 300) for index in range(4)]
    small = bundles.samples(tmp_path / "small", PICTURES)
    found = list(small_pictures([*large, *small], NUMBERS, 1_000_000))
    assert sorted(data for _, data in found) == sorted(path.read_bytes() for path in small)


def test_large_ones_are_scaled_down_where_small_ones_do_not_suffice(tmp_path: Path) -> None:
    large = [noise(tmp_path / f"large{index}.tiff", 400, 300) for index in range(4)]
    small = bundles.samples(tmp_path / "small", 2)
    found = list(small_pictures([*large, *small], NUMBERS, 1_000_000))
    assert [suffix for suffix, _ in found] == [".png"] * 6
    assert [data for _, data in found[:2]] == [path.read_bytes() for path in small]
    assert all(min(Image.open(io.BytesIO(data)).size) == 64 for _, data in found[2:])


@pytest.mark.parametrize(("image_size", "largest_px"), [(32, 1_000_000), (512, 1_000_000), (512, 1000), (32, 1)])
def test_no_picture_is_above_a_limit(tmp_path: Path, image_size: int, largest_px: int) -> None:
    samples = [
        noise(tmp_path / "bytes.bmp", 1200, 900),
        plain(tmp_path / "pixels.png", 3000, 2000),
        plain(tmp_path / "narrow.png", 2, 60_000),
        noise(tmp_path / "profile.jpg", 300, 300, icc_profile=bytes(400_000)),
    ]
    found = list(small_pictures(samples, Preprocessing.for_size(image_size, 178_956_970), largest_px))
    assert len(found) == 4
    for _, data in found:
        assert len(data) <= LARGEST_BYTES
        assert size_px(data) <= largest_px


def test_unreadable_large_ones_are_passed_over_too(tmp_path: Path) -> None:
    bad = tmp_path / "bad.bmp"
    bad.write_bytes(bytes(LARGEST_BYTES + 1))
    with pytest.raises(DataError, match=r"bad.bmp: not a picture"):
        list(small_pictures([bad], NUMBERS, 1000))
    good = noise(tmp_path / "good.bmp", 400, 300)
    assert len(list(small_pictures([bad, good], NUMBERS, 1_000_000))) == 1


def test_a_bundle_of_large_pictures_expects_what_its_own_bytes_give(tmp_path: Path) -> None:
    """The logits are of the small picture, and it is below the limits of the spec's serve."""
    checkpoint = bundles.checkpoint()
    checkpoint.classifier["spec"]["serve"] = {"maxPixels": 2000}
    try:
        samples = [noise(tmp_path / f"{index}.bmp", 500, 200 + 100 * index) for index in range(3)]
        bundle = read_bundle(write_bundle(checkpoint, samples, tmp_path / "bundle", {}))
    finally:
        del checkpoint.classifier["spec"]["serve"]
    model = architecture.build("resnet18", 3, "small")
    model.load_state_dict(checkpoint.weights)
    model.eval()
    assert len(bundle.golden) == 3
    for item in bundle.golden:
        data = (bundle.path / "golden" / item.file).read_bytes()
        assert size_px(data) <= bundle.description.serve.max_pixels
        with torch.inference_mode():
            logits = model(preprocess(data, checkpoint.preprocessing).unsqueeze(0))[0]
        assert logits.tolist() == pytest.approx(item.logits, abs=1e-4)


def test_the_limit_is_below_what_an_upload_may_always_have() -> None:
    assert golden.LARGEST_BYTES < 1024 * 1024  # serve.maxUploadMib is at least 1
