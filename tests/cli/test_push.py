"""`platform data push`, as its user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import pictures
from support.buckets import URL, contents, in_memory
from support.here import Here


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    return pictures.write_classes(tmp_path / "flowers", {"rose": 3, "tulip": 3})


def test_push_prints_the_url_and_says_what_comes_next(home: Path, here: Here, flowers: Path) -> None:
    with in_memory() as store:
        said = here("data", "push", str(flowers), URL)
        assert said.code == 0, said.err
        assert said.out.strip().startswith(f"{URL}/sha256-")
        assert f"next: platform train --data {said.out.strip()} --data-digest sha256:" in said.err
        again = here("data", "push", str(flowers), URL, "-o", "json")
        found = json.loads(again.out)
        assert (found["url"], found["pictures"], found["sent"]) == (said.out.strip(), 6, 0)
        assert "nothing had to be sent" in again.err
        assert len(contents(store)) == 7


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "which store?"),
        (("/mnt/data",), 2, "is no place that a cluster's pods see"),
        (("memory://b/x", "--namespace", "n"), 2, "--namespace has no effect on memory://b/x"),
        (("pvc://claim",), 3, "no Kubernetes cluster is known here"),
    ],
)
def test_a_push_that_cannot_be_says_what_to_type(
    home: Path, here: Here, flowers: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    said = here("data", "push", str(flowers), *words)
    assert said.code == code
    assert says in said.err
    assert "hint: " in said.err
    assert said.out == ""


def test_what_is_no_data_set_is_refused(home: Path, here: Here, tmp_path: Path) -> None:
    with in_memory() as store:
        said = here("data", "push", str(tmp_path), URL)
        assert said.code == 65
        assert contents(store) == {}
