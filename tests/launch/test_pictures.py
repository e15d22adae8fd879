"""Pictures of a URL, for the ranks of a node: fetched by a process of their own."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest

from support.published import serving
from support.ranks import classifier
from trainserve.errors import DataError, EnvironmentProblem, PeerLost
from trainserve.launch import pictures
from trainserve.launch.pictures import fetched
from trainserve.train.distributed import Group


def archive(text: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for label in ("rose", "tulip"):
            for number in range(3):
                opened.writestr(f"{label}/{number}.png", f"{label} {number} {text}")
    return buffer.getvalue()


def of(url: str, cache: Any, **data: Any) -> Any:
    found = classifier(url)
    values = found.spec.data.model_copy(update={"path": url, "cache": str(cache), **data})
    return found.model_copy(update={"spec": found.spec.model_copy(update={"data": values})})


def test_a_folder_stays_what_it_is(tmp_path):
    found = classifier(str(tmp_path))
    assert fetched(found, Group()) is found


@pytest.mark.slow
def test_a_url_becomes_a_folder_of_the_cache(tmp_path):
    with serving({"f.zip": archive()}) as server:
        found = fetched(of(f"{server.url}/f.zip", tmp_path), Group())
    path = found.spec.data.path
    assert path.startswith(f"{tmp_path}/url-")
    assert len(list(tmp_path.rglob("*.png"))) == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data", "kind", "says"),
    [
        ("g.zip", {}, EnvironmentProblem, "cannot be had: HTTP 404 Not Found"),
        ("f.zip", {"digest": "sha256:" + "0" * 64}, DataError, "is not what it should be"),
    ],
)
def test_an_error_of_the_process_is_the_ranks(tmp_path, name, data, kind, says):
    with serving({"f.zip": archive()}) as server, pytest.raises(kind, match=says) as caught:
        fetched(of(f"{server.url}/{name}", tmp_path, **data), Group())
    assert caught.value.hint


class Told(Group):
    """A rank of a group whose others say what a test wants: `rounds` of facts, one of them this rank's own."""

    def __init__(self, rank: int, rounds: list[list[dict[str, Any]]]) -> None:
        super().__init__(rank=rank, world_size=len(rounds[0]))
        self.rounds = iter(rounds)
        self.names: list[str] = []

    def exchange(self, name: str, value: Any) -> list[Any]:
        self.names.append(name)
        facts = list(next(self.rounds))
        facts[self.rank] = value
        return facts


DONE = {"path": "/cache/x", "digest": "sha256:1", "code": 0}


@pytest.fixture
def second_of_its_node(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")


def test_other_ranks_of_a_node_wait_for_its_first_as_long_as_it_takes(second_of_its_node, tmp_path):
    group = Told(1, [[{"done": 1, "total": 9}, {}], [{"done": 5, "total": 9}, {}], [DONE, {}]])
    found = fetched(of("http://nowhere.invalid/f.zip", tmp_path), group)
    assert found.spec.data.path == "/cache/x"
    assert len(set(group.names)) == 3


def test_a_node_without_pictures_is_the_culprit_and_the_others_are_victims(second_of_its_node, tmp_path):
    failed = {"error": "no room", "hint": None, "code": 3}
    with pytest.raises(PeerLost, match="the node of rank 2 cannot have the pictures: no room"):
        fetched(of("http://nowhere.invalid/f.zip", tmp_path), Told(1, [[DONE, {}, failed, {}]]))


def test_nodes_that_fetched_different_pictures_are_told(second_of_its_node, tmp_path):
    other = {**DONE, "digest": "sha256:2"}
    with pytest.raises(
        DataError, match=r"rank 2's node has fetched other pictures than rank 0's: sha256:1 and sha256:2"
    ):
        fetched(of("http://nowhere.invalid/f.zip", tmp_path), Told(1, [[DONE, {}, other, {}]]))


def test_how_far_all_are_is_one_sentence():
    facts = [DONE, {"done": 2**20, "total": 4 * 2**20}, {"done": 3 * 2**20, "total": 4 * 2**20}]
    assert pictures._how_far(facts) == "1 of 3 nodes have the pictures; the slowest has 25 % of 4.0 MiB"


@pytest.mark.slow
def test_a_process_that_dies_without_a_word_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures.sys, "executable", "/bin/false")
    with pytest.raises(EnvironmentProblem, match="ended with 1"):
        fetched(of("http://nowhere.invalid/f.zip", tmp_path), Group())
