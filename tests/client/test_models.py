"""What a word means: a run, a bundle's folder, an archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainserve.client.models import ModelSource, archive_of, bundle_of, find_model
from trainserve.errors import UserError
from trainserve.local import rundir


@pytest.fixture
def here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a run `digits`, and files and folders of any name."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    rundir.create("digits")
    return place


def kind(found: ModelSource) -> str:
    known = {"archive": found.archive, "bundle": found.bundle, "run": found.run}
    (only,) = (name for name, value in known.items() if value is not None)
    return only


def test_a_word_is_one_thing_for_every_verb(here: Path) -> None:
    (here / "packed").mkdir()
    (here / "packed" / "model.json").touch()
    (here / "pictures").mkdir()
    (here / "digits").touch()  # a file of a run's name is not what is meant
    (here / "file").touch()
    for word, wanted in (
        ("digits", "run"), ("local://digits", "run"), ("./digits", "archive"), ("file", "archive"),
        ("gone.mar", "archive"), ("packed", "bundle"), (Path("packed"), "bundle"), (here / "packed", "bundle"),
    ):  # fmt: skip
        assert kind(find_model(word)) == wanted, word
    assert find_model(".././here/packed/").name == "packed"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("", "'' is no run and no bundle"),
        ("digts", "no such run 'digts' .*, did you mean 'digits'"),
        ("local://packed", "no such run 'packed'"),
        ("k8s://digits", "names no namespace"),
        ("./nothing/bundle", "^./nothing/bundle: no such file or folder"),
        (".", "neither a run nor a bundle: it has no model.json"),
        ("a\nb", r"no such run 'a\\nb'"),
    ],
)
def test_a_word_that_is_nothing(here: Path, word: str, says: str) -> None:
    for function in (find_model, bundle_of, archive_of):
        with pytest.raises(UserError, match=says):
            function(word)


def test_what_a_verb_cannot_take_is_told(here: Path) -> None:
    (here / "a b").mkdir()
    (here / "a b" / "model.json").touch()
    (here / "x.mar").touch()
    with pytest.raises(UserError, match=r"x\.mar: a file, neither a run nor a bundle"):
        bundle_of("x.mar")
    with pytest.raises(UserError, match=r"y\.mar: no such file, run or bundle"):
        bundle_of("y.mar")
    with pytest.raises(UserError, match="a bundle, and not packed yet\nhint: platform package 'a b'"):
        archive_of("a b")
    for function in (bundle_of, archive_of):
        with pytest.raises(UserError, match=r"run 'digits' has no .*: its state is"):
            function("digits")
