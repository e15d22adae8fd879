"""Archives that strangers have made."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from support.published import tar_gz
from trainserve.errors import DataError
from trainserve.train import archive

PICTURE = b"\x89PNG not looked at"


def extracted(tmp_path: Path, data: bytes, name: str) -> list[str]:
    file, folder = tmp_path / "archive", tmp_path / "out"
    file.write_bytes(data)
    folder.mkdir()
    files = archive.extract(file, name, folder, lambda _: None)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {each.path for each in files}
    return sorted(there)


def zipped(members: dict[str, bytes], **about: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = about.get("external_attr", 0)
            opened.writestr(info, data)
    return buffer.getvalue()


def test_pictures_are_taken_and_nothing_else(tmp_path):
    members = {
        "f/rose/1.png": PICTURE,
        "f/rose/2.JPG": PICTURE,
        "f/README": b"x",
        "f/rose/._1.png": b"x",
        "__MACOSX/1.png": b"x",
    }
    assert extracted(tmp_path, tar_gz(dict(members)), "f.tar.gz") == ["f/rose/1.png", "f/rose/2.JPG"]
    (tmp_path / "zip").mkdir()
    assert extracted(tmp_path / "zip", zipped(members), "f.zip") == ["f/rose/1.png", "f/rose/2.JPG"]


@pytest.mark.parametrize("name", ["../rose/1.png", "/rose/1.png", "rose/../../1.png", "../../x.txt"])
def test_a_member_that_leads_out_is_refused_and_nothing_is_written_there(tmp_path, name):
    for number, (data, word) in enumerate(((tar_gz({name: PICTURE}), "f.tar.gz"), (zipped({name: PICTURE}), "f.zip"))):
        folder = tmp_path / str(number) / "deep"
        folder.mkdir(parents=True)
        with pytest.raises(DataError, match="leads out of the folder"):
            extracted(folder, data, word)
        assert not list((tmp_path / str(number)).rglob("*.png"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_a_device_in_the_place_of_a_picture_is_refused(tmp_path, kind):
    info = tarfile.TarInfo("rose/1.png")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(DataError, match=r"'rose/1.png' is a link or a device") as caught:
        extracted(tmp_path, tar_gz({"a": info}), "f.tar.gz")
    assert "--dereference" in str(caught.value.hint)


def test_a_link_of_a_zip_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a link"):
        extracted(tmp_path, zipped({"rose/1.png": b"/etc/passwd"}, external_attr=0o120777 << 16), "f.zip")


def test_a_bomb_is_given_up_before_it_fills_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "SPARE", 2**20)
    members = {f"rose/{number}.bmp": bytes(2**20) for number in range(9)}
    for number, (data, name) in enumerate(((tar_gz(dict(members)), "f.tar.gz"), (zipped(members), "f.zip"))):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(DataError, match="pictures do not do that"):
            extracted(tmp_path / str(number), data, name)
        written = sum(path.stat().st_size for path in (tmp_path / str(number)).rglob("*.bmp"))
        assert written <= 2**20 + len(data) * archive.EXPANSION + archive.CHUNK


def test_one_picture_may_not_be_larger_than_any_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST", 10)
    with pytest.raises(DataError, match="pictures do not do that"):
        extracted(tmp_path, tar_gz({"rose/1.png": bytes(11)}), "f.tar.gz")


def test_the_same_name_twice_is_refused(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        for data in (b"one", b"two"):
            info = tarfile.TarInfo("rose/1.png")
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    with pytest.raises(DataError, match="is in it twice"):
        extracted(tmp_path, buffer.getvalue(), "f.tar")


@pytest.mark.parametrize("cut", [10, 60, -20, -5])
@pytest.mark.parametrize("name", ["f.tar.gz", "f.zip"])
def test_half_an_archive_is_told(tmp_path, cut, name):
    members = {f"rose/{number}.png": bytes(range(256)) * 40 for number in range(5)}
    data = tar_gz(dict(members)) if name == "f.tar.gz" else zipped(members)
    with pytest.raises(DataError, match=name):
        extracted(tmp_path, data[:cut], name)


def test_an_archive_without_pictures_is_told(tmp_path):
    with pytest.raises(DataError, match=r"f\.zip holds no pictures"):
        extracted(tmp_path, zipped({"a/readme.txt": b"x"}), "f.zip")


def test_the_folder_around_a_data_set_is_not_part_of_it(tmp_path):
    (tmp_path / "flowers" / "train" / "rose").mkdir(parents=True)
    (tmp_path / "flowers" / "val" / "rose").mkdir(parents=True)
    assert archive.top(tmp_path) == tmp_path / "flowers"
    assert archive.top(tmp_path / "flowers") == tmp_path / "flowers"
