from __future__ import annotations

import os
import shutil
import unicodedata

import pytest
from PIL import Image

from support import pictures
from support.command import platform
from trainserve.client.client import Client
from trainserve.client.listener import Listener
from trainserve.errors import DataError
from trainserve.spec.load import load
from trainserve.train import imagecheck, imagefolder
from trainserve.train.datacheck import DataReport, check_data


def classifier(folder, *sets):
    return load(None, sets, {"spec.data.path": ("DIR", str(folder))}, name_for=lambda _: "data")


def report(folder, *sets) -> DataReport:
    return check_data(classifier(folder, *sets), threads=2)


def kinds(found: DataReport) -> dict[str, tuple[tuple[str, ...], ...]]:
    return {warned.kind: warned.groups for warned in found.warnings}


@pytest.fixture
def folder(tmp_path):
    """Ten different pictures in each of two classes: nothing to warn of."""
    return pictures.write_classes(tmp_path / "data", {"a": 13, "b": 13}, size=40)


def test_a_good_folder_has_counts_and_no_complaint(folder):
    found = report(folder)
    assert found.ok
    assert found.warnings == ()
    assert found.classes == {"a": {"train": 10, "val": 3}, "b": {"train": 10, "val": 3}}
    assert found.pictures == {"train": 20, "val": 6, "total": 26}
    assert (found.formats, found.modes) == ({"PNG": 26}, {"RGB": 26})
    assert found.width is not None
    assert vars(found.width) == {"min": 40, "median": 40, "max": 40}
    assert found.next == f"platform train --data {folder} --batch-size 20"  # the default of 64 is more than there are


def test_refusals_are_those_of_training_and_all_of_them(tmp_path):
    pictures.write_classes(tmp_path / "train", {"a": 3, "b": 3, "c": 0, "d": 2})
    pictures.write_classes(tmp_path / "val", {"a": 2, "b": 2, "x": 1})
    (tmp_path / "train" / "a" / "half.png").write_bytes(pictures.picture("RGB")[:60])
    found = report(tmp_path)
    messages = [refusal.message for refusal in found.refusals]
    assert len(messages) == 3
    assert "only in train/: c, d; only in val/: x" in messages[0]
    assert "no picture in class folder c" in messages[1]
    assert "train/a/half.png: truncated" in messages[2]
    with pytest.raises(DataError) as caught:
        imagefolder.scan(tmp_path)
    assert caught.value.message == messages[0]
    assert found.classes["x"] == {"train": 0, "val": 1}
    assert found.next == f"platform data check {tmp_path}"


def test_skipping_and_limits_are_as_in_training(folder):
    Image.new("1", (2000, 1000)).save(folder / "a" / "big.png")
    (folder / "b" / "gone.png").symlink_to("nowhere.png")
    limit = "data.maxPixels=1000000"
    refused = report(folder, limit)
    assert {bad.path: bad.reason for bad in refused.unreadable} == {
        "a/big.png": "2000 x 1000 = 2,000,000 pixels is more than the limit of 1,000,000 (maxPixels)",
        "b/gone.png": "No such file or directory",
    }
    listing = imagefolder.scan(folder)
    spec = classifier(folder, limit).spec.data
    assert tuple(imagecheck.check(listing, spec, threads=1)) == refused.unreadable
    kept = report(folder, limit, "data.skipBad=true")
    assert kept.ok
    assert kept.notices == ("2 pictures skipped: a/big.png, b/gone.png",)
    assert "--skip-bad --max-pixels 1000000" in kept.next


def test_a_batch_that_somebody_gave_is_refused_as_in_training(folder):
    found = report(folder, "train.batchSize=32")
    assert [refusal.message for refusal in found.refusals] == [
        "spec.train.batchSize: global batch 32 is more than the 20 training pictures"
    ]


def test_the_same_picture_twice_is_told_by_where_it_is(tmp_path):
    folder = tmp_path
    pictures.write_classes(folder / "train", {"a": 12, "b": 12}, size=40, seed=1)
    pictures.write_classes(folder / "val", {"a": 4, "b": 4}, size=40, seed=2)
    shutil.copy(folder / "train/a/0001.png", folder / "train/a/copy.png")
    shutil.copy(folder / "train/b/0001.png", folder / "val/b/copy.png")
    with Image.open(folder / "train/a/0005.png") as image:
        image.save(folder / "train/b/other.bmp")  # other bytes, the same pixels
    found = {warned.kind: warned for warned in report(folder).warnings}
    assert found["duplicates"].groups == (("train/a/0001.png", "train/a/copy.png"),)
    assert found["across-splits"].groups == (("train/b/0001.png", "val/b/copy.png"),)
    assert found["two-labels"].groups == (("train/a/0005.png", "train/b/other.bmp"),)
    assert "accuracy will look better than it is" in found["across-splits"].message
    assert "byte for byte" in found["duplicates"].message
    assert "by their pixels" in found["two-labels"].message


def test_names_that_are_one_elsewhere(tmp_path):
    pictures.write_classes(tmp_path, {"Cat": 12, "cat": 12, "dog": 12}, size=40)
    [warned] = [w for w in report(tmp_path).warnings if w.kind == "names-alike"]
    assert "Cat and cat" in warned.message
    shutil.rmtree(tmp_path / "Cat")
    nfc = tmp_path / "dog" / unicodedata.normalize("NFC", "é.png")
    nfd = tmp_path / "dog" / unicodedata.normalize("NFD", "É.png")
    shutil.copy(tmp_path / "dog" / "0001.png", nfc)
    shutil.copy(tmp_path / "dog" / "0002.png", nfd)
    assert kinds(report(tmp_path))["names-alike"] == ((f"dog/{nfd.name}", f"dog/{nfc.name}"),)


def test_links_out_of_the_folder_and_in_circles(folder, tmp_path):
    pictures.write_classes(tmp_path, {"elsewhere": 3}, size=40, seed=3)
    (folder / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "a" / "again").symlink_to(folder / "a")
    (folder / "b" / "near.png").symlink_to("0001.png")
    found = report(folder)
    assert kinds(found)["links-outside"] == (("a/more",),)
    assert found.ignored["links that lead back to a folder above"] == ["a/again"]
    assert found.pictures["total"] == 30


def test_odd_pictures_are_named(folder):
    for kind, mode, name in (
        ("16-bit", "I;16", "deep.png"),
        ("cmyk", "CMYK", "print.jpg"),
        ("transparent", "RGBA", "clear.png"),
        ("animated", "GIF", "moving.gif"),
    ):
        path = folder / "a" / name
        path.write_bytes(pictures.picture(mode, 48, 48))
        assert kinds(report(folder))[kind] == ((f"a/{name}",),)
        path.unlink()
    (folder / "a" / "wrong.png").write_bytes(pictures.picture("CMYK", 48, 48))
    (folder / "a" / "tiny.png").write_bytes(pictures.picture("RGB", 10, 10))
    found = kinds(report(folder, "serve.maxPixels=2000"))
    assert (found["misnamed"], found["too-small"]) == ((("a/wrong.png",),), (("a/tiny.png",),))
    assert found["too-large"] == (("a/wrong.png",),)


def test_balance_and_classes_nothing_judges(tmp_path):
    pictures.write_classes(tmp_path / "train", {"a": 60, "b": 11, "c": 4}, size=40)
    pictures.write_classes(tmp_path / "val", {"a": 4, "b": 4, "c": 0}, size=40, seed=200)
    found = {w.kind: w for w in report(tmp_path, "data.allowEmptyClasses=true").warnings}
    assert "a has 60 training pictures, c 4: 15 times" in found["unbalanced"].message
    assert "fewer than 10 training pictures of c" in found["few"].message
    assert "no validation picture of c" in found["not-judged"].message


def test_hidden_things_are_named(folder):
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "a" / "._0001.png").write_bytes(bytes(4096))
    (folder / "a" / "notes.txt").write_text("x")
    assert report(folder).ignored == {
        "hidden or system folders": [".ipynb_checkpoints"],
        "sidecar files": ["a/._0001.png"],
        "files that are no pictures": ["a/notes.txt"],
    }


def test_a_folder_that_may_not_be_read_does_not_hide_the_rest(folder, monkeypatch):
    real = os.scandir
    denied = folder / "b"

    def scandir(path):
        if str(path) == str(denied):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    (folder / "a" / "half.png").write_bytes(pictures.picture("RGB")[:60])
    monkeypatch.setattr(os, "scandir", scandir)
    messages = [refusal.message for refusal in report(folder).refusals]
    assert messages[0] == f"{denied} cannot be read: Permission denied"
    assert "a/half.png: truncated" in messages[1]


def test_without_a_folder_the_nearest_is_named_and_the_same_command_is_no_advice(folder, tmp_path):
    missing = report(tmp_path / "dta")
    assert [refusal.message for refusal in missing.refusals] == [
        f"data folder {tmp_path / 'dta'} does not exist, did you mean {folder}?"
    ]
    assert missing.next == ""
    (tmp_path / "file").touch()
    assert report(tmp_path / "file").next == ""
    (tmp_path / "loop").symlink_to("loop")
    (folder / "a" / "loop.png").symlink_to("loop.png")
    assert [bad.path for bad in report(folder).unreadable] == ["a/loop.png"]
    loop = report(tmp_path / "loop")
    assert loop.next == ""
    assert "cannot be read" in loop.refusals[0].message or "does not exist" in loop.refusals[0].message
    done = platform("data", "check", tmp_path / "x" / "nowhere")
    assert (done.returncode, done.stderr) == (65, "")
    assert "nowhere does not exist\n   hint: give the folder" in done.stdout


@pytest.mark.slow
def test_on_the_command_line(folder, tmp_path):
    good = platform("data", "check", folder, "--jobs", 2, cwd=tmp_path)
    assert (good.returncode, good.stderr) == (0, f"next: platform train --data {folder} --batch-size 20\n")
    assert "26 pictures of 2 classes" in good.stdout
    assert good.stdout.endswith("ok: train would begin\n")
    raw = os.fsencode(folder) + b"/a/-x \xff\n.png"
    with open(raw, "wb") as file:
        file.write(b"<html>")
    for fmt in ("table", "json", "yaml"):
        bad = platform("data", "check", folder, "-o", fmt, cwd=tmp_path)
        assert bad.returncode == 65, bad.stderr
        assert "-x \\xff\\n.png: not a picture" in bad.stdout.replace("\\\\", "\\")
        assert bad.stderr == f"when that is mended: platform data check {folder}\n"
    assert platform("data", "check").returncode == 2
    spec = tmp_path / "spec.yaml"
    spec.write_text("metadata: {name: x}\nspec: {data: {path: data, skipBad: true}, train: {batchSize: 4}}\n")
    done = platform("data", "check", "-f", spec, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, f"next: platform train -f {spec}\n")


def test_a_program_gets_the_same_report(folder):
    heard = []

    class Counting(Listener):
        def pictures_checked(self, done: int, total: int) -> None:
            heard.append((done, total))

    found = Client(Counting()).check_data(folder, sets=["data.valSplit=0.5"], threads=1)
    assert found == report(folder, "data.valSplit=0.5")
    assert found.pictures == {"train": 13, "val": 13, "total": 26}
    assert heard == [(26, 26)]
