from __future__ import annotations

import json
import os
from itertools import chain
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image

from support import gridded, pictures
from trainserve.errors import DataError
from trainserve.spec.classifier import DataSpec
from trainserve.train import imagecheck
from trainserve.train.imagecheck import BadPicture, check, checked, left_out, median_short_side, mode_of, vetted
from trainserve.train.imagefolder import scan


def data(path, **fields) -> DataSpec:
    return DataSpec.model_validate({"path": str(path), **fields})


@pytest.fixture
def folder(tmp_path):
    return pictures.write_classes(tmp_path / "data", {"a": 6, "b": 6}, size=32, suffix=".jpg")


def spoil(folder, share=0.6):
    noise = pictures.encode(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")
    (folder / "a" / "0002.jpg").write_bytes(noise[: int(len(noise) * share)])
    (folder / "b" / "0001.jpg").write_text("<html>no</html>")
    (folder / "b" / "0003.jpg").write_bytes(b"")


@pytest.mark.parametrize("mode", ["full", "fast"])
def test_img_03_all_bad_pictures_are_named_with_a_reason(folder, mode):
    spoil(folder)
    bad = check(scan(folder), data(folder, check=mode), threads=2)
    assert sorted(picture.path for picture in bad) == ["a/0002.jpg", "b/0001.jpg", "b/0003.jpg"]
    reasons = {picture.path: picture.reason for picture in bad}
    assert "truncated" in reasons["a/0002.jpg"]
    assert "empty" in reasons["b/0003.jpg"]


def test_img_03_strict_refuses_and_skip_counts(folder):
    spoil(folder)
    listing = scan(folder)
    bad = check(listing, data(folder), threads=2)
    with pytest.raises(DataError, match=r"3 of 12 pictures .* cannot be read:") as caught:
        vetted(listing, data(folder), bad)
    assert "a/0002.jpg: truncated" in caught.value.message
    assert "--skip-bad" in str(caught.value)
    kept = vetted(listing, data(folder, skipBad=True), bad)
    assert len(kept.train) + len(kept.val) == 9
    assert kept.classes == listing.classes
    assert kept.notices[-1].startswith("3 pictures skipped: ")


def test_a_long_list_is_cut_at_twenty(folder):
    bad = [BadPicture(f"a/{n}.jpg", "x") for n in range(25)]
    with pytest.raises(DataError, match="and 5 more"):
        vetted(scan(folder), data(folder), bad)


def test_a_class_with_nothing_left_is_refused(folder):
    listing = scan(folder)
    bad = [BadPicture(s.path, "x") for s in listing.train if s.label == 1]
    with pytest.raises(DataError, match="class b has none left"):
        vetted(listing, data(folder, skipBad=True), bad)


@pytest.mark.parametrize("mode", ["full", "fast"])
def test_img_06_a_picture_beyond_the_limit_names_size_limit_and_setting(folder, mode):
    Image.new("1", (2000, 1000)).save(folder / "a" / "big.png")
    listing = scan(folder)
    spec = data(folder, maxPixels=1_000_000, check=mode)
    bad = check(listing, spec, threads=1)
    with pytest.raises(DataError, match=r"2000 x 1000 = 2,000,000 pixels .* 1,000,000") as caught:
        vetted(listing, spec, bad)
    assert "spec.data.maxPixels" in str(caught.value)
    assert check(listing, data(folder, maxPixels=2_000_000, check=mode), threads=1) == []


def many_scans() -> bytes:
    """A JPEG of 400 x 400 whose last scan comes a thousand times."""
    data = pictures.encode(Image.new("RGB", (400, 400)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + 1000 * scan + data[-2:]


RED, BLUE = Image.new("RGB", (64, 64), (250, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 250))


def costly(name: str) -> bytes:
    """A small file that would cost too much to decode."""
    if name == "scans.jpg":
        return many_scans()
    return gridded.grid(RED, BLUE, {".heic": "HEIF", ".avif": "AVIF"}[name[-5:]], (128, 64), (128, 64), 200)


@pytest.mark.parametrize("name", ["scans.jpg", "tiles.heic", "tiles.avif"])
def test_what_is_too_costly_to_decode_is_refused_in_both_modes_in_the_same_words(folder, name):
    pillow_heif.register_heif_opener()
    limit = 160_000 if name == "scans.jpg" else 100_000
    (folder / "a" / name).write_bytes(costly(name))
    refused = {
        mode: check(scan(folder), data(folder, check=mode, maxPixels=limit), threads=1) for mode in ("full", "fast")
    }
    assert refused["fast"] == refused["full"]
    assert [bad.path for bad in refused["full"]] == [f"a/{name}"]


def test_fast_reads_a_jpeg_whole_only_where_it_has_room_for_too_many_scans(folder, monkeypatch):
    read = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or whole(path))
    (folder / "a" / "scans.jpg").write_bytes(many_scans())
    assert check(scan(folder), data(folder, check="fast"), threads=1) == []  # the usual limit allows so many
    assert read == []
    check(scan(folder), data(folder, check="fast", maxPixels=160_000), threads=1)
    assert read == ["scans.jpg"]


def test_a_link_to_nothing_is_a_bad_picture(folder):
    (folder / "a" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    [bad] = check(scan(folder), data(folder), threads=1)
    assert bad.path == "a/gone.jpg"
    assert "No such file" in bad.reason


def test_shards_together_are_the_whole(folder):
    spoil(folder)
    listing = scan(folder)
    parts = [check(listing, data(folder), threads=1, shard=(rank, 3)) for rank in range(3)]
    assert sorted(chain(*parts), key=lambda b: b.path) == sorted(
        check(listing, data(folder), threads=1), key=lambda b: b.path
    )


def test_the_result_is_kept_until_a_file_changes(folder, tmp_path, monkeypatch):
    path = tmp_path / "data-check.json"
    checked(scan(folder), data(folder), path, threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(imagecheck, "check", lambda *_, **__: pytest.fail("checked again"))
        checked(scan(folder), data(folder), path, threads=1)
    os.utime(folder / "a" / "0000.jpg", (5, 5))
    assert imagecheck.stored(path, scan(folder), data(folder)) is None
    assert imagecheck.stored(path, scan(folder), data(folder, check="fast")) is None
    path.write_text("{")
    assert imagecheck.stored(path, scan(folder), data(folder)) is None


def test_auto_is_full_up_to_twenty_thousand():
    assert mode_of(data("x"), 20_000) == "full"
    assert mode_of(data("x"), 20_001) == "fast"
    assert mode_of(data("x", check="none"), 1) == "none"


def test_the_median_of_the_short_sides(tmp_path):
    pictures.write_classes(tmp_path, {"a": 9, "b": 9}, size=40)
    Image.new("RGB", (900, 700)).save(tmp_path / "a" / "x.png")
    assert median_short_side(scan(tmp_path)) == 40


def test_the_list_of_what_was_left_out(tmp_path):
    file = tmp_path / "data-check.json"
    assert left_out(file) == ()
    file.write_text(json.dumps({"bad": [{"path": "1/x.png", "reason": "empty file"}]}))
    assert left_out(file) == (BadPicture("1/x.png", "empty file"),)
    file.write_text("{")
    assert left_out(file) == ()
