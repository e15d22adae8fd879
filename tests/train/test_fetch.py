"""Pictures of a URL in a cache: whole or not at all."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import fsspec
import pytest

from support.published import serving
from trainserve.errors import DataError, EnvironmentProblem, UserError
from trainserve.machine.bucket.store import open_bucket
from trainserve.machine.bucket.words import Absent
from trainserve.train import fetch as fetching
from trainserve.train import manifest
from trainserve.train.fetch import fetch
from trainserve.train.manifest import File

PICTURES = {
    f"{label}/{number}.png": f"{label} {number}".encode() * 9 for label in ("rose", "tulip") for number in range(6)
}


@pytest.fixture
def bucket():
    """A folder of fsspec's memory."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield open_bucket("memory://bucket/flowers")
    files.store.clear()


def filled(bucket, pictures=PICTURES):
    for name, data in pictures.items():
        bucket.write(name, data)
    return bucket


def digest_of(pictures=PICTURES) -> str:
    import hashlib

    return manifest.digest_of(
        File(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in pictures.items()
    )


def there(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".dataset.json"
    }


def packed(kind: str, around: str = "") -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as opened:
            for name, data in PICTURES.items():
                opened.writestr(around + name, data)
    else:
        with tarfile.open(fileobj=buffer, mode=kind) as opened:
            for name, data in PICTURES.items():
                info = tarfile.TarInfo(around + name)
                info.size = len(data)
                opened.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_a_folder_is_fetched_once_and_known_again(bucket, tmp_path):
    filled(bucket).write("rose/notes.txt", b"no picture")
    said, heard = [], []
    first = fetch(bucket.url, tmp_path, heard=lambda *of: heard.append(of), say=said.append)
    assert there(first.path) == PICTURES
    assert (first.digest, first.pictures, first.reused) == (digest_of(), 12, False)
    assert heard[-1] == (first.bytes, first.bytes)
    again = fetch(bucket.url, tmp_path, say=said.append)
    assert (again.path, again.reused) == (first.path, True)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.parametrize(
    ("name", "kind"), [("f.zip", "zip"), ("f.tar", "w:"), ("f.tar.gz", "w:gz"), ("f.tar.xz", "w:xz")]
)
def test_an_archive_has_the_digest_of_its_folder(bucket, tmp_path, name, kind):
    bucket.write(name, packed(kind, around="flowers/"))
    found = fetch(f"{bucket.url}/{name}", tmp_path, digest=digest_of(), say=lambda _: None)
    assert there(found.path) == PICTURES
    assert found.path == tmp_path / digest_of().replace(":", "-")


def test_with_a_digest_nothing_is_asked_twice(bucket, tmp_path):
    filled(bucket)
    fetch(bucket.url, tmp_path, digest=digest_of())
    found = fetch("memory://nowhere/at/all", tmp_path, digest=digest_of())
    assert found.reused


def test_what_changes_at_its_place_is_fetched_anew(bucket, tmp_path):
    filled(bucket)
    old = fetch(bucket.url, tmp_path)
    bucket.write("rose/0.png", b"another flower")
    new = fetch(bucket.url, tmp_path)
    assert new.path != old.path
    assert (new.path / "rose/0.png").read_bytes() == b"another flower"
    assert (old.path / "rose/0.png").read_bytes() == PICTURES["rose/0.png"]  # somebody may still read it


def test_another_digest_is_an_error_and_leaves_nothing(bucket, tmp_path):
    filled(bucket)
    with pytest.raises(DataError, match=rf"its 12 pictures have {digest_of()}, spec.data.digest is sha256:0000"):
        fetch(bucket.url, tmp_path, digest="sha256:" + "0" * 64)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_pushed_folder_is_taken_by_its_manifest_alone(bucket, tmp_path):
    import hashlib

    files = [File(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in PICTURES.items()]
    filled(bucket).write("rose/later.png", b"not in the manifest")
    bucket.write(manifest.NAME, manifest.encode(files))
    found = fetch(bucket.url, tmp_path)
    assert there(found.path) == PICTURES
    bucket.write("rose/0.png", PICTURES["rose/0.png"][::-1])  # the same size
    with pytest.raises(DataError, match=r"rose/0.png has sha256 \w+, its manifest says"):
        fetch(bucket.url, tmp_path / "other")


def test_what_somebody_has_changed_in_the_cache_is_fetched_again(bucket, tmp_path):
    filled(bucket)
    found = fetch(bucket.url, tmp_path)
    (found.path / "rose/0.png").unlink()
    again = fetch(bucket.url, tmp_path)
    assert not again.reused
    assert there(again.path) == PICTURES


def test_too_little_room_is_told_before_anything_is_fetched(bucket, tmp_path, monkeypatch):
    filled(bucket)
    monkeypatch.setattr(fetching, "RESERVE", 2**60)
    with pytest.raises(EnvironmentProblem, match=r"needs about .* are free there") as caught:
        fetch(bucket.url, tmp_path)
    assert "spec.data.cache" in str(caught.value.hint)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("memory://bucket/nothing", Absent, "holds no pictures"),
        ("memory://bucket/nothing.zip", Absent, "there is no such archive"),
        ("http://127.0.0.1:9/flowers.zip", EnvironmentProblem, "connection refused"),
        ("http://127.0.0.1:9/flowers", EnvironmentProblem, "connection refused"),
        ("nonsense://a/b", UserError, "Protocol not known"),
    ],
)
def test_what_is_not_there_is_told(url, kind, says, tmp_path, bucket):
    with pytest.raises(kind, match=says):
        fetch(url, tmp_path)


def test_an_archive_of_the_web_goes_on_where_it_broke(tmp_path):
    data = packed("w:")
    with serving({"f.tar": data}) as server:
        server.cut_after = 5000
        said = []
        found = fetch(f"{server.url}/f.tar", tmp_path, say=said.append)
        assert there(found.path) == PICTURES
        assert ("/f.tar", "bytes=5000-") in server.asked
        with pytest.raises(Absent, match="a web server has no list"):
            fetch(f"{server.url}/flowers", tmp_path)


class Flaky:
    """A bucket whose every third request fails."""

    def __init__(self, bucket) -> None:
        self._bucket, self._count, self._lock = bucket, 0, threading.Lock()
        self.url = bucket.url

    def __getattr__(self, name):
        def asked(*args):
            with self._lock:
                self._count += 1
                failing = self._count % 3 == 0
            if failing:
                raise EnvironmentProblem("it is not in the mood")
            return getattr(self._bucket, name)(*args)

        return asked


def test_a_bucket_that_fails_each_third_time_is_asked_again(bucket, tmp_path, monkeypatch):
    from trainserve.train import fetch_files

    filled(bucket)
    monkeypatch.setattr(fetch_files, "PAUSE_S", 0.0)
    monkeypatch.setattr(fetch_files, "open_bucket", lambda url: Flaky(open_bucket(url)))
    assert there(fetch(bucket.url, tmp_path).path) == PICTURES


def _slowly(source: str, cache: str) -> None:
    """In a process of its own: fetch from a folder of the disk, a picture every tenth of a second."""
    from trainserve.machine.bucket.filesystems import FileSystem

    stream = FileSystem.stream

    def slow(self, name, start=0):
        if name.endswith(".png"):
            time.sleep(0.1)
        return stream(self, name, start)

    FileSystem.stream = slow
    fetch_files_at_once(1)
    fetch(source, Path(cache), say=lambda _: None)


def fetch_files_at_once(count: int) -> None:
    from trainserve.train import fetch_files

    fetch_files.AT_ONCE = count


def test_a_fetch_that_is_killed_goes_on_and_two_at_a_time_fetch_once(tmp_path):
    source = tmp_path / "source"
    for name, data in PICTURES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    url, cache = f"file://{source}", tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    first = context.Process(target=_slowly, args=(url, str(cache)))
    first.start()
    partial = []
    while len(partial) < 3:
        partial = [path for path in cache.rglob("*.png") if not path.name.startswith(".")] if cache.exists() else []
        time.sleep(0.01)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    kept = {Path(*path.parts[-2:]): path.stat().st_mtime_ns for path in partial}
    assert [path for path in cache.iterdir() if not path.name.startswith(".")] == []  # nothing has its name yet
    results = []
    threads = [threading.Thread(target=lambda: results.append(fetch(url, cache, say=lambda _: None))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found.reused for found in results) == [False, True]
    assert there(results[0].path) == PICTURES
    stamps = {path.relative_to(results[0].path): path.stat().st_mtime_ns for path in results[0].path.rglob("*.png")}
    assert kept.items() <= stamps.items()
