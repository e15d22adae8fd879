from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.machine.target import check_target


def test_what_is_no_file_is_never_written_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "old").touch()
    with pytest.raises(UserError, match=r"^--out .*: is a folder; give a file such as .*/a\.html$"):
        check_target(tmp_path, "a.html", "--out")
    for name in ("pipe", "link"):
        with pytest.raises(UserError, match=rf"^{tmp_path / name}: is a pipe or device, not a file\n"):
            check_target(tmp_path / name, "a.html")
    for name in ("old", "new", "no/new"):
        check_target(tmp_path / name, "a.html")
    with pytest.raises(UserError, match=r"there is no folder .*no\n"):
        check_target(tmp_path / "no" / "new", "a.html", in_folder=True)


def test_a_file_in_the_place_of_a_folder_above_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file/a", "file/b/c/a"):
        with pytest.raises(UserError, match=rf"a: {tmp_path}/file is a file, not a folder\n"):
            check_target(tmp_path / name, "a.html")


def test_what_is_read_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.mar").touch()
    (tmp_path / "link").symlink_to("x.mar")
    for name in ("x.mar", "link"):
        with pytest.raises(UserError, match=r"^--save .*: is what is read\nhint: give another file, .*/a\.json"):
            check_target(tmp_path / name, "a.json", "--save", source=tmp_path / "x.mar")
    check_target(tmp_path / "new", "a.json", source=tmp_path / "x.mar")
    check_target(tmp_path / "x.mar", "a.json", source=tmp_path / "digits")


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere but on a read-only disk, so the system's answer is made up here."""
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK | os.X_OK))
    with pytest.raises(EnvironmentProblem, match=rf"^--out .*: nothing can be written in {tmp_path}\nhint: it is"):
        check_target(tmp_path / "a.html", "a.html", "--out")
