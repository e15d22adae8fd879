from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import pictures
from trainserve.errors import EXIT_DATA, DataError
from trainserve.spec.classifier import Classifier
from trainserve.train.imagefolder import Sample, scan, scan_for, split


def test_a_listing_has_every_picture_once_in_a_fixed_order(tmp_path):
    pictures.write_classes(tmp_path, {"cats": 10, "dogs": 5})
    listing = scan(tmp_path)
    assert listing.classes == ("cats", "dogs")
    assert listing.counts() == {"cats": (8, 2), "dogs": (4, 1)}
    assert [s.path for s in listing.train] == sorted(s.path for s in listing.train)
    assert listing.notices == ()
    assert scan(tmp_path) == listing


def test_train_and_val_folders_are_taken_as_they_are(tmp_path):
    pictures.write_classes(tmp_path / "train", {"a": 3, "b": 2})
    pictures.write_classes(tmp_path / "val", {"a": 1, "b": 1})
    (tmp_path / "test").mkdir()
    listing = scan(tmp_path)
    assert listing.counts() == {"a": (3, 1), "b": (2, 1)}
    assert listing.val[0].path == "val/a/0000.png"
    assert "not used: test" in listing.notices[0]


def test_img_01_hidden_folders_are_no_classes(tmp_path):
    pictures.write_classes(tmp_path, {"a": 10, "b": 10, "c": 10})
    pictures.write_classes(tmp_path, {".ipynb_checkpoints": 1, "a/.ipynb_checkpoints": 1})
    listing = scan(tmp_path)
    assert listing.classes == ("a", "b", "c")
    assert len(listing.train) + len(listing.val) == 30
    assert listing.notices == ("ignored 2 hidden or system folders (.ipynb_checkpoints)",)


def test_img_02_an_empty_class_folder_stops_or_keeps_its_index(tmp_path):
    pictures.write_classes(tmp_path, {"a": 4, "b": 0, "c": 4, "d": 4})
    with pytest.raises(DataError, match="no picture in class folder b") as caught:
        scan(tmp_path)
    assert "--allow-empty-classes" in str(caught.value)
    listing = scan(tmp_path, allow_empty_classes=True)
    assert listing.classes == ("a", "b", "c", "d")
    assert {s.label for s in listing.train} == {0, 2, 3}


def test_img_05_numbered_folders_keep_their_names(tmp_path):
    pictures.write_classes(tmp_path, {str(number): 2 for number in range(1, 13)})
    listing = scan(tmp_path)
    assert listing.classes[:4] == ("1", "10", "11", "12")
    assert all(listing.classes[s.label] == s.path.split("/")[0] for s in listing.samples())


def test_img_07_sidecar_files_are_counted_in_one_line(tmp_path):
    pictures.write_classes(tmp_path, {"a": 20, "b": 20}, suffix=".jpg")
    for path in list(tmp_path.glob("*/*.jpg")):
        path.with_name(f"._{path.name}").write_bytes(bytes(4096))
    listing = scan(tmp_path)
    assert len(listing.train) + len(listing.val) == 40
    assert listing.notices == ("ignored 40 sidecar files (._*)",)


def test_files_that_are_no_pictures_are_counted(tmp_path):
    pictures.write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "labels.csv").write_text("x")
    (tmp_path / ".DS_Store").write_text("x")
    assert scan(tmp_path).notices == (
        "ignored 1 hidden file (.DS_Store), 2 files that are no pictures (a/notes.txt, labels.csv)",
    )


def test_names_with_blanks_unicode_and_bytes_and_nested_folders(tmp_path):
    pictures.write_classes(tmp_path, {"Hund & Katze": 2, "日本語": 2, "a/deep/er": 2})
    raw = os.fsencode(tmp_path) + b"/a/\xff.png"
    with open(raw, "wb") as file:
        file.write(pictures.flat((1, 2, 3)))
    listing = scan(tmp_path)
    assert listing.classes == ("Hund & Katze", "a", "日本語")
    assert len(listing.fingerprint) == 64
    assert "a/deep/er/0000.png" in {s.path for s in listing.samples()}
    assert all((tmp_path / s.path).exists() for s in listing.samples())


def test_links_are_followed_but_never_in_a_circle(tmp_path):
    pictures.write_classes(tmp_path / "data", {"a": 2, "b": 2})
    pictures.write_classes(tmp_path, {"elsewhere": 3})
    (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "again").symlink_to(tmp_path / "data" / "a")
    listing = scan(tmp_path / "data")
    assert [sum(pair) for pair in listing.counts().values()] == [2, 2, 3]
    assert "a/again" in listing.notices[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "nowhere", "does not exist"),
        (lambda root: root, "no class folders"),
        (lambda root: pictures.write_classes(root, {"a": 0, "b": 0}), "2 class folders but no picture"),
        (lambda root: pictures.write_classes(root, {"only": 3}), r"one class folder only \(only\)"),
        (lambda root: pictures.write_classes(root, {"train/a": 2, "train/b": 2}), "train/ but not both"),
        (lambda root: pictures.write_classes(root, {"train/a": 2, "test/a": 2}), "test/ and train/ but not both"),
        (lambda root: pictures.write_classes(root / "x", {".": 2}), "2 pictures directly, without class folders"),
        (lambda root: pictures.write_classes(root, {"a": 1, "b": 1}), "too few to hold any out"),
    ],
)
def test_what_is_no_data_set_is_refused_in_words(tmp_path, make, message):
    with pytest.raises(DataError, match=message) as caught:
        scan(make(tmp_path))
    assert caught.value.exit_code == EXIT_DATA
    assert caught.value.hint or "nowhere" in str(caught.value)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"x")
    with pytest.raises(DataError, match="is a file"):
        scan(tmp_path / "a.zip")


def test_differing_classes_are_shown_in_both_directions(tmp_path):
    pictures.write_classes(tmp_path, {"train/a": 1, "train/b": 1, "train/c": 1, "val/a": 1, "val/b": 1, "val/x": 1})
    with pytest.raises(DataError, match="only in train/: c; only in val/: x"):
        scan(tmp_path)


def test_fingerprint_and_digest_notice_what_they_should(tmp_path):
    pictures.write_classes(tmp_path, {"a": 5, "b": 5})
    before = scan(tmp_path)
    os.utime(tmp_path / "a" / "0000.png", (1, 1))
    touched = scan(tmp_path)
    assert touched.fingerprint != before.fingerprint
    assert touched.digest == before.digest
    (tmp_path / "a" / "0000.png").rename(tmp_path / "a" / "0009.png")
    assert scan(tmp_path).digest != before.digest


SIZES = st.lists(st.integers(1, 40), min_size=2, max_size=8)


@given(SIZES, st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.5, 0.9]), st.integers(0, 5))
def test_the_split_is_exact_stratified_and_repeatable(sizes, share, seed):
    samples = [Sample(f"{c}/{n}", c, 1, 1) for c, size in enumerate(sizes) for n in range(size)]
    if max(sizes) == 1:
        with pytest.raises(DataError):
            split(samples, len(sizes), share, seed)
        return
    train, val = split(samples, len(sizes), share, seed)
    assert sorted(train + val, key=samples.index) == samples
    assert {s.label for s in train} == set(range(len(sizes)))
    wanted = -(-round(share * 100) * len(samples) // 100)
    assert len(val) == min(wanted, len(samples) - len(sizes))
    if len(val) == wanted and all(size * (1 - share) >= 2 for size in sizes):
        for c, size in enumerate(sizes):
            assert abs(sum(s.label == c for s in val) - share * size) < 1
    assert split(samples, len(sizes), share, seed) == (train, val)


def test_another_seed_holds_out_others():
    samples = [Sample(f"{c}/{n}", c, 1, 1) for c in range(3) for n in range(30)]
    assert split(samples, 3, 0.2, 0)[1] != split(samples, 3, 0.2, 1)[1]


def test_scanning_imports_no_torch():
    code = "import sys, trainserve.train.imagefolder, trainserve.train.imagecheck; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_what_waits_or_never_ends_is_no_picture(tmp_path):
    pictures.write_classes(tmp_path, {"a": 2, "b": 2})
    os.mkfifo(tmp_path / "a" / "pipe.png")
    listing = scan(tmp_path)
    assert "a/pipe.png" not in {sample.path for sample in listing.samples()}
    assert "1 file that is no picture (a/pipe.png)" in listing.notices[0]


def test_a_link_to_itself_is_passed_over(tmp_path):
    pictures.write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "self").symlink_to("self")
    listing = scan(tmp_path)
    assert listing.classes == ("a", "b")
    assert "self" in listing.notices[0]


def test_a_link_to_a_folder_above_the_data_brings_no_pictures_of_other_classes(tmp_path):
    pictures.write_classes(tmp_path / "data", {"a": 2, "b": 2})
    (tmp_path / "data" / "a" / "up").symlink_to(tmp_path)
    listing = scan(tmp_path / "data")
    assert len(list(listing.samples())) == 4
    assert "a/up" in listing.notices[0]


def test_a_class_whose_name_is_not_utf8_is_refused_before_training(tmp_path):
    pictures.write_classes(tmp_path, {"a": 2, "b": 2})
    os.rename(tmp_path / "a", os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(DataError, match=r"class folder b'\\xff' is not UTF-8"):
        scan(tmp_path)


def test_a_path_that_no_disk_can_have(tmp_path):
    with pytest.raises(DataError, match="File name too long"):
        scan(tmp_path / ("x" * 300))


@pytest.mark.parametrize(("share", "said"), [(0.2, False), (0.3, True)])
def test_a_share_that_has_no_effect_is_said_only_where_somebody_gave_one(tmp_path, share, said):
    for part in ("train", "val"):
        pictures.write_classes(tmp_path / part, {"a": 2, "b": 2})
    written = {"metadata": {"name": "x"}, "spec": {"data": {"path": str(tmp_path), "valSplit": share}}}
    whole = Classifier.model_validate(written).model_dump(mode="json", by_alias=True)  # as a pod gets it
    notices = scan_for(Classifier.model_validate(whole)).notices
    assert any("has no effect" in notice for notice in notices) is said


def test_a_notice_is_one_line_whatever_the_names(tmp_path):
    pictures.write_classes(tmp_path, {"a": 2, "b": 2, ".c\nd": 0})
    (tmp_path / "a" / "x\n\x1b[31my.txt").write_text("x")
    [notice] = scan(tmp_path).notices
    assert notice == (r"ignored 1 hidden or system folder (.c\nd), 1 file that is no picture (a/x\n\x1b[31my.txt)")
