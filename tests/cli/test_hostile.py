"""Words that nobody means: empty ones, endless ones, files where folders belong."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from support.command import platform
from trainserve import errors
from trainserve.cli.main import of_the_machine


@pytest.mark.parametrize(
    "words",
    [
        ["package", ""],
        ["package", "x", "--out", ""],
        ["evaluate", ""],
        ["export", "", "--format", "onnx"],
        ["predict", "server", ""],
        ["data", "get", "digits", ""],
        ["data", "check", ""],
        ["report", "x", "--out", ""],
        ["train", "-f", ""],
    ],
    ids=" ".join,
)
def test_an_empty_word_is_never_the_current_folder(words: list[str], tmp_path: Path) -> None:
    done = platform(*words, home=tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "''" in done.stderr or '""' in done.stderr
    assert "hint: " in done.stderr or "allowed: " in done.stderr
    assert list(tmp_path.iterdir()) == []  # and nothing was written there


@pytest.mark.parametrize("verb", ["evaluate", "package"])
def test_an_endless_name_is_the_users_mistake_and_not_repeated_whole(verb: str, tmp_path: Path) -> None:
    done = platform(verb, "ü" * 300, home=tmp_path)
    assert done.returncode == 2
    assert "File name too long" in done.stderr
    assert "hint: " in done.stderr
    assert "ü" * 81 not in done.stderr


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP])
def test_something_else_where_a_file_or_folder_belongs_has_a_hint(number: int) -> None:
    told = of_the_machine(OSError(number, os.strerror(number), "/place"))
    assert (told.exit_code, told.message) == (errors.EXIT_ENVIRONMENT, f"/place: {os.strerror(number)}")
    assert told.hint


def test_a_home_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    done = platform("list", home=tmp_path / "home")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("hint: a file is where a folder belongs")
