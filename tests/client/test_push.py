"""`platform data push`: what is sent, and what is not sent twice."""

from __future__ import annotations

import pytest

from support import pictures
from support.buckets import URL, Failing, contents, in_memory
from trainserve.client.cluster import push as pushing
from trainserve.client.cluster import reach
from trainserve.client.cluster.push import push
from trainserve.client.listener import Listener
from trainserve.errors import DataError, UserError
from trainserve.machine.bucket.store import open_bucket
from trainserve.machine.bucket.web import Web
from trainserve.train import manifest
from trainserve.train.fetch import fetch


class Ear(Listener):
    def __init__(self) -> None:
        self.notices: list[str] = []
        self.heard: list[tuple[str, int, int]] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def uploading(self, name: str, done: int, total: int) -> None:
        self.heard.append((name, done, total))


@pytest.fixture
def store():
    with in_memory() as found:
        yield found


@pytest.fixture
def flowers(tmp_path):
    folder = pictures.write_classes(tmp_path / "flowers", {"rose": 4, "tulip": 3})
    (folder / "README").write_text("no picture")
    (folder / "rose" / ".hidden.png").write_bytes(b"x")
    return folder


def test_pictures_and_manifest_lie_below_the_digest(store, flowers, tmp_path):
    ear = Ear()
    found = push(flowers, URL, None, ear)
    assert found.url == f"{URL}/{found.digest.replace(':', '-')}"
    assert found.pictures == 7
    assert found.sent == found.bytes > 0
    below = found.url.removeprefix(URL + "/")
    assert set(contents(store)) == {
        *(f"{below}/{path.relative_to(flowers).as_posix()}" for path in flowers.rglob("[0-9a-z]*.png")),
        f"{below}/{manifest.NAME}",
    }
    assert ear.heard[-1] == ("flowers", found.bytes, found.bytes)
    assert fetch(found.url, tmp_path / "cache", digest=found.digest).pictures == 7


def test_the_same_pictures_are_not_sent_twice_whatever_the_folder_is_called(store, flowers):
    first = push(flowers, URL, None, Listener())
    moved = flowers.rename(flowers.with_name("other"))
    (moved / "LICENCE").write_text("free")
    again = push(moved, URL + "/", None, Listener())
    assert (again.url, again.digest, again.sent) == (first.url, first.digest, 0)


def test_an_interrupted_push_goes_on_where_it_was(store, flowers, monkeypatch):
    done = push(flowers, URL, None, Listener())
    below = done.url.removeprefix(URL + "/")
    store.remove([f"{below}/{manifest.NAME}"])
    gone = [name for name in contents(store) if name.endswith(".png")][:2]
    store.remove(gone)
    heard = Failing(open_bucket(done.url), every=10**9)
    monkeypatch.setattr(reach, "open_bucket", lambda _: heard)
    ear = Ear()
    again = push(flowers, URL, None, ear)
    assert again.url == done.url
    missing = {name.removeprefix(below + "/") for name in gone}
    assert set(heard.written) == {*missing, manifest.NAME}
    assert heard.written[-1] == manifest.NAME
    assert any("pictures are there already" in text for text in ear.notices)


def test_a_store_that_fails_each_third_time_gets_all(store, flowers, monkeypatch):
    monkeypatch.setattr(pushing, "PAUSE_S", 0.0)
    monkeypatch.setattr(reach, "open_bucket", lambda url: Patient(Failing(open_bucket(url))))
    found = push(flowers, URL, None, Listener())
    assert sum(name.endswith(".png") for name in contents(store)) == found.pictures


class Patient:
    """Only what is sent may fail: the rest is asked once and by the client's own repetition."""

    def __init__(self, failing: Failing) -> None:
        self._failing = failing
        self.url = failing.url

    def __getattr__(self, name):
        return getattr(self._failing if name == "send" else self._failing._bucket, name)


def test_what_is_no_data_set_is_refused_before_anything_is_sent(store, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        push(tmp_path / "empty", URL, None, Listener())
    with pytest.raises(DataError, match="does not exist"):
        push(tmp_path / "nowhere", URL, None, Listener())
    assert contents(store) == {}


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("/mnt/data", "is no place that a cluster's pods see"),
        ("hostpath:///mnt/data", "is no place that a cluster's pods see"),
        ("pvc://claim", "no cluster is chosen"),
        ("pcv://claim", "did you mean pvc://"),
        ("https://host/data", "nothing is written to a web server"),
    ],
)
def test_a_store_that_is_none_is_refused(to, says, flowers, store, monkeypatch):
    monkeypatch.setattr(Web, "head", lambda self, name: None)
    monkeypatch.setattr(Web, "list", lambda self, prefix="": iter(()))
    with pytest.raises(UserError, match=says):
        push(flowers, to, None, Listener())
