from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from support import published
from support.command import command, environment, platform
from trainserve.errors import DataError, EnvironmentProblem, UserError
from trainserve.machine import download
from trainserve.train import get as get_module
from trainserve.train.get import get, write
from trainserve.train.get_readers import Picture, read
from trainserve.train.get_sources import SOURCES
from trainserve.train.imagefolder import scan

pytestmark = pytest.mark.slow


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Make the tiny files the published ones; returns the folder they are in."""
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download.time, "sleep", lambda _: None)

    def publish(name: str, url: str = "http://127.0.0.1:1", **files: bytes) -> Path:
        made = files or published.TINY[name]()
        monkeypatch.setitem(SOURCES, name, published.source(name, made, url))
        return published.write(tmp_path / "files", made)

    return publish


def test_digits_are_written_once_and_known_again(tmp_path):
    first = get("digits", tmp_path / "digits")
    assert (first.pictures, first.classes, first.reused) == (1797, 10, False)
    assert "CC BY" in first.licence
    second = get("digits", tmp_path / "digits")
    assert (second.reused, second.digest, second.pictures) == (True, first.digest, 1797)
    listing = scan(tmp_path / "digits")
    assert (len(listing.train), len(listing.val), listing.notices) == (1437, 360, ())
    with Image.open(tmp_path / "digits" / "0" / "0000.png") as image:
        assert (image.size, image.mode) == ((8, 8), "L")
        assert image.getextrema() == (0, 239)
    (tmp_path / "digits" / "0" / "0000.png").unlink()
    with pytest.raises(UserError, match="were changed"):
        get("digits", tmp_path / "digits")
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_another_folder_is_not_touched(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UserError, match="is not the digits"):
        get("digits", tmp_path)
    assert (tmp_path / "mine").read_text() == "x"


def test_a_place_that_cannot_be_is_told_before_a_download(tmp_path, tiny):
    with published.serving(published.TINY["cifar10"]()) as server:
        tiny("cifar10", server.url)
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"file is a file, not a folder\n"):
            get("cifar10", tmp_path / "file" / "x")
        assert server.asked == []
    with pytest.raises(UserError, match=r"--from .*: digits needs no files"):
        get("digits", tmp_path, local=tmp_path)


def test_digests_and_classes_are_torchvisions():
    """torchvision has no digest of CIFAR-10's binary version; that one is on the authors' page."""
    from torchvision.datasets import FashionMNIST, Flowers102, Imagenette

    def pinned(name):
        source = SOURCES[name]
        return {file.name: file.md5 for file in (*source.files, *source.others)}

    assert pinned("fashion-mnist") == dict(FashionMNIST.resources)
    assert pinned("flowers102") == dict(Flowers102._file_dict.values())
    assert {file.url for file in SOURCES["flowers102"].files} == {
        f"{Flowers102._download_url_prefix}{name}" for name in pinned("flowers102")
    }
    archives = Imagenette._ARCHIVES.values()
    assert pinned("imagenette") == {url.rpartition("/")[2]: md5 for url, md5 in archives}
    words = {wordnet: names[0] for wordnet, names in Imagenette._WNID_TO_CLASS.items()}
    assert dict(zip(SOURCES["imagenette"].wordnet, SOURCES["imagenette"].classes, strict=True)) == words
    assert [name.lower().split("/")[0] for name in FashionMNIST.classes] == [*SOURCES["fashion-mnist"].classes]


@pytest.mark.parametrize(
    ("name", "counts", "a_picture"),
    [
        ("fashion-mnist", {"t-shirt": (3, 1), "ankle boot": (3, 1)}, "train/t-shirt/00010.png"),
        ("cifar10", {"airplane": (10, 2), "truck": (10, 2)}, "val/frog/test_batch_00006.png"),
        ("flowers102", {"pink primrose": (1, 1), "hard-leaved pocket orchid": (1, 0)}, "test/passion flower/image_00006.jpg"),  # noqa: E501
        ("imagenette", {"tench": (2, 1), "English springer": (2, 1)}, "val/tench/ILSVRC2012_val_1.JPEG"),
    ],
)  # fmt: skip
def test_a_published_data_set_becomes_class_folders(tiny, tmp_path, name, counts, a_picture):
    local = tiny(name)
    found = get(name, tmp_path / "data", local=local)
    pictures = [path for path in (tmp_path / "data").rglob("*") if path.suffix in {".png", ".jpg", ".JPEG"}]
    assert found.pictures == len(pictures)
    assert (tmp_path / "data" / a_picture).is_file()
    listing = scan(tmp_path / "data", allow_empty_classes=True) if name != "flowers102" else None
    for label, expected in counts.items():
        assert expected == tuple(len(list((tmp_path / "data" / part / label).glob("*"))) for part in ("train", "val"))
        assert listing is None or listing.counts()[label] == expected
    marker = json.loads((tmp_path / "data" / ".dataset.json").read_text())
    assert (marker["digest"], marker["licence"]) == (found.digest, SOURCES[name].licence)
    assert not (tmp_path / "escape.JPEG").exists()
    assert get(name, tmp_path / "data", local=local).reused
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "files"]


def test_pixels_and_bytes_are_the_publishers(tiny, tmp_path):
    get("cifar10", tmp_path / "c", local=tiny("cifar10"))
    with Image.open(tmp_path / "c" / "train" / "dog" / "data_batch_3_00015.png") as image:
        assert (image.size, image.getpixel((31, 31))) == ((32, 32), (15, 30, 200))
    get("fashion-mnist", tmp_path / "f", local=tiny("fashion-mnist"))
    with Image.open(tmp_path / "f" / "train" / "trouser" / "00021.png") as image:
        assert (image.size, image.mode, image.getextrema()) == ((28, 28), "L", (21, 21))
    files = published.flowers102()
    get("flowers102", tmp_path / "o", local=tiny("flowers102", **files))
    with tarfile.open(tmp_path / "files" / "102flowers.tgz") as archive:
        stream = archive.extractfile("jpg/image_00001.jpg")
        assert stream is not None
        assert (tmp_path / "o" / "train" / "pink primrose" / "image_00001.jpg").read_bytes() == stream.read()


def test_a_limit_is_for_each_class_and_part_and_part_of_the_name(tiny, tmp_path):
    local = tiny("cifar10")
    assert get("cifar10", tmp_path / "data", local=local, limit=1).pictures == 20
    assert get("cifar10", tmp_path / "data", local=local, limit=1).reused
    with pytest.raises(UserError, match="holds cifar10 with at most 1 pictures a class"):
        get("cifar10", tmp_path / "data", local=local)


def test_only_the_very_files_are_taken(tiny, tmp_path):
    local = tiny("fashion-mnist")
    broken = local / "t10k-labels-idx1-ubyte.gz"
    data = broken.read_bytes()
    broken.write_bytes(data[:-1] + b"x")
    with pytest.raises(UserError, match=r"is not t10k-labels-idx1-ubyte.gz as fashion-mnist publishes it: md5"):
        get("fashion-mnist", tmp_path / "data", local=local)
    broken.unlink()
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz of fashion-mnist is not there") as caught:
        get("fashion-mnist", tmp_path / "data", local=local)
    assert "--from" in str(caught.value)
    (local / "raw").mkdir()  # as torchvision leaves them, a folder below
    (local / "raw" / broken.name).write_bytes(data)
    assert get("fashion-mnist", tmp_path / "data", local=local).pictures == 40
    with pytest.raises(UserError, match="no such file or folder"):
        get("fashion-mnist", tmp_path / "other", local=tmp_path / "nowhere")
    with pytest.raises(UserError, match="did you mean 'cifar10'"):
        get("cifar-10", tmp_path / "other")


def test_a_file_under_another_name_may_be_given_itself(tiny, tmp_path):
    [(_, data)] = published.cifar10().items()
    tiny("cifar10")
    given = tmp_path / "my download.bin"
    given.write_bytes(data)
    assert get("cifar10", tmp_path / "data", local=given).classes == 10


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("cifar10", {"cifar-10-binary.tar.gz": b"no archive"}, "no whole .tar.gz"),
        ("cifar10", {"cifar-10-binary.tar.gz": published.cifar10()["cifar-10-binary.tar.gz"][:-300]}, "no whole"),
        (
            "cifar10",
            {"cifar-10-binary.tar.gz": published.tar_gz({"cifar-10-batches-bin/test_batch.bin": b"12345"})},
            "no multiple of 3073",
        ),
        (
            "cifar10",
            {"cifar-10-binary.tar.gz": published.tar_gz({"cifar-10-batches-bin/test_batch.bin": b"\xff" * 3073})},
            "label 255 is none of its 10 classes",
        ),
        (
            "cifar10",
            {"cifar-10-binary.tar.gz": published.tar_gz({"cifar-10-batches-bin/test_batch.bin": bytes(33 * 2**20)})},
            "has 34,603,008 bytes",
        ),
        (
            "imagenette",
            {"imagenette2-160.tgz": published.tar_gz({"imagenette2/train/n99999999/x.JPEG": b"x"})},
            "n99999999 is none of its classes",
        ),
        ("fashion-mnist", {**published.fashion_mnist(), "train-images-idx3-ubyte.gz": b"\0"}, "gzip"),
        (
            "fashion-mnist",
            {**published.fashion_mnist(), "train-labels-idx1-ubyte.gz": published.idx((2**31,), b"")},
            "says it holds",
        ),
        (
            "fashion-mnist",
            {**published.fashion_mnist(), "train-labels-idx1-ubyte.gz": published.idx((30,), bytes(9_000_000))},
            "holds 31 values, its head says 30",
        ),
    ],
)
def test_files_that_are_not_as_described_leave_nothing(tiny, tmp_path, name, files, message):
    local = tiny(name, **files)
    with pytest.raises((DataError, EnvironmentProblem), match=message):
        get(name, tmp_path / "data", local=local)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files"]


def test_a_broken_connection_goes_on_where_it_was(tiny, tmp_path):
    files = published.imagenette()
    [(name, data)] = files.items()
    with published.serving(files) as server:
        tiny("imagenette", server.url)
        server.cut_after = 700
        heard: list[tuple[str, int, int]] = []
        found = get("imagenette", tmp_path / "data", progress=lambda *event: heard.append(event))
        assert found.pictures == 6
        assert server.asked == [(f"/{name}", None), (f"/{name}", "bytes=700-")]
        assert heard[-1] == (name, len(data), len(data))
        kept = tmp_path / "home" / "downloads" / name
        assert kept.read_bytes() == data
        get("imagenette", tmp_path / "again", limit=1)
        assert len(server.asked) == 2  # not asked again


def test_a_body_without_end_is_given_up_and_fills_no_disk(tiny, tmp_path, monkeypatch):
    """It once was taken for a broken connection that had got on, and so tried again for ever."""
    monkeypatch.setattr(download, "LARGEST", 600)
    with published.serving(published.imagenette()) as server:
        tiny("imagenette", server.url)
        with pytest.raises(EnvironmentProblem, match="more than 600 bytes came; removed"):
            get("imagenette", tmp_path / "data")
        assert len(server.asked) == 1
    assert not list((tmp_path / "home" / "downloads").glob("*.part"))


def test_a_part_of_an_earlier_try_is_used_or_replaced(tiny, tmp_path):
    files = published.imagenette()
    [(name, data)] = files.items()
    part = tmp_path / "home" / "downloads" / f"{name}.part"
    part.parent.mkdir(parents=True)
    with published.serving(files) as server:
        tiny("imagenette", server.url)
        part.write_bytes(data[:500])
        server.ranges = False  # such a server sends all of it
        assert get("imagenette", tmp_path / "a").pictures == 6
        (part.parent / name).unlink()
        part.write_bytes(b"x" * (len(data) + 5))  # of some other file
        server.ranges = True
        with pytest.raises(EnvironmentProblem, match="not the file it was, or came damaged"):
            get("imagenette", tmp_path / "b")
        assert not part.exists()
        assert get("imagenette", tmp_path / "b").pictures == 6


def test_what_cannot_be_had_names_address_and_the_other_way(tiny, tmp_path):
    with published.serving({}) as server:
        tiny("imagenette", server.url)
        with pytest.raises(EnvironmentProblem, match=r"/imagenette2-160.tgz cannot be had: HTTP 404") as caught:
            get("imagenette", tmp_path / "data")
        assert len(server.asked) == 1
    assert "--from FOLDER" in str(caught.value)
    tiny("imagenette", "http://127.0.0.1:1")
    with pytest.raises(EnvironmentProblem, match="Connection refused"):
        get("imagenette", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_stopped_writing_leaves_nothing(tiny, tmp_path, monkeypatch):
    local = tiny("cifar10")
    real = Image.merge
    calls = []

    def merge(*args):
        calls.append(args)
        if len(calls) == 50:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(Image, "merge", merge)
    with pytest.raises(KeyboardInterrupt):
        get("cifar10", tmp_path / "data", local=local)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files"]


def test_links_and_ways_out_of_an_archive_are_passed_over(tiny):
    local = tiny("imagenette")
    names = [picture.name for picture in read(SOURCES["imagenette"], {p.name: p for p in local.iterdir()})]
    assert names == ["a_1.JPEG", "a_2.JPEG", "ILSVRC2012_val_1.JPEG"] * 2


@pytest.mark.slow
def test_on_the_command_line(tmp_path):
    done = platform("data", "get", "digits", "--limit", 2, "-o", "json", home=tmp_path / "h", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["pictures"] == 20
    assert "licence: Optical Recognition" in done.stderr
    assert done.stderr.endswith("next: platform train --data digits\n")
    wrong = platform("data", "get", "cifar10", "--from", tmp_path / "digits", home=tmp_path / "h", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "cifar-10-binary.tar.gz of cifar10 is not there" in wrong.stderr
    blocked = {**environment(tmp_path / "h"), "http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
    words = command("data", "get", "imagenette")
    offline = subprocess.run(words, check=False, env=blocked, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert offline.returncode == 3
    assert "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz cannot be had" in offline.stderr
    assert "--from FOLDER" in offline.stderr
    assert "Traceback" not in offline.stderr
    assert sorted(os.listdir(tmp_path)) == ["digits", "h"]


def test_no_folder_is_begun_before_the_first_picture_is_there(tmp_path):
    """A reader imports what reads its files; Ctrl-C in an import ends the process at once."""

    def pictures():
        assert list(tmp_path.iterdir()) == []
        yield Picture("", "a", "0.png", b"x")
        assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
        yield Picture("", "b", "1.png", b"y")

    made = write(SOURCES["digits"], pictures(), tmp_path / "digits")
    assert (made.pictures, made.classes) == (2, 2)


def test_two_commands_into_one_folder_have_one_data_set(tmp_path, tiny, monkeypatch):
    """The slower one finds what the faster one has made meanwhile, and looks at it as at any other."""
    place = tiny("cifar10")
    read_slowly = get_module.get_readers.read

    def read(source, files):
        monkeypatch.setattr(get_module.get_readers, "read", read_slowly)
        first = get("cifar10", tmp_path / "out", local=place)
        assert not first.reused
        return read_slowly(source, files)

    monkeypatch.setattr(get_module.get_readers, "read", read)
    second = get("cifar10", tmp_path / "out", local=place)
    assert second.reused
    assert {path.name for path in tmp_path.iterdir()} == {"files", "out"}

    def somebody_else(source, files):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "file").touch()
        return read_slowly(source, files)

    monkeypatch.setattr(get_module.get_readers, "read", somebody_else)
    with pytest.raises(UserError, match="exists and is not the cifar10 data set"):
        get("cifar10", tmp_path / "mine", local=place)
