"""Folders in the system's temporary folder go when their maker is dead, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from trainserve.machine import temporary
from trainserve.machine.temporary import remove_if_stale, remove_stale_folders, stale_folders

MAKE = """\
import sys; from trainserve.machine.temporary import own_folder
with own_folder('trainserve-', 200) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def aged(path: Path) -> Path:
    os.utime(path, (1, 1))
    return path


def test_what_a_killed_process_left_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    words = [sys.executable, "-c", MAKE]
    with (
        subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living,
    ):
        assert killed.stdout is not None
        assert living.stdout is not None
        dead, alive = Path(killed.stdout.readline().strip()), Path(living.stdout.readline().strip())
        killed.kill()
        killed.wait()
        assert stale_folders(tmp_path) == []  # both are young
        aged(dead)
        aged(alive)
        assert stale_folders(tmp_path) == [dead]
        assert remove_stale_folders(tmp_path) == 1
        assert not dead.exists()
        assert alive.exists()
        living.kill()


def test_only_ours_by_name_and_no_link(tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    for name in ("trainserve-ports-0", "trainserve-mine", "trainserve-ABCDEFGH", "other-abcdefgh"):
        aged_folder = tmp_path / name
        aged_folder.mkdir()
        aged(aged_folder)
    (tmp_path / "trainserve-abcdefgh").symlink_to(target)
    aged(target)
    assert stale_folders(tmp_path) == []
    assert not remove_if_stale(tmp_path / "trainserve-abcdefgh")
    ours = tmp_path / "trainserve-serving-abcdefgh"
    ours.mkdir()
    (ours / "link").symlink_to(target)
    (target / "file").write_text("kept")
    assert stale_folders(tmp_path) == []
    aged(ours)
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert stale_folders(tmp_path) == []
    monkeypatch.undo()
    assert remove_stale_folders(tmp_path) == 1
    assert (target / "file").read_text() == "kept"


def test_a_clock_that_was_set_back_keeps_nothing_for_ever(tmp_path: Path) -> None:
    folder = tmp_path / "trainserve-abcdefgh"
    folder.mkdir()
    os.utime(folder, (4e9, 4e9))
    assert stale_folders(tmp_path) == [folder]


def test_this_process_holds_its_own(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(os.listdir("/dev/fd"))
    with temporary.own_folder("trainserve-", 200) as folder, temporary.own_folder("trainserve-evaluate-") as other:
        (aged(folder) / "file").touch()
        aged(other)
        assert stale_folders(tmp_path) == []
        assert {path.stat().st_mode & 0o777 for path in (folder, other)} == {0o700}
        folder.joinpath("file").unlink()
        folder.rmdir()  # by somebody else, such as a guard
    assert not other.exists()
    assert len(os.listdir("/dev/fd")) == before


def test_a_folder_for_a_socket_is_short(tmp_path: Path, monkeypatch) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with temporary.own_folder("trainserve-test-", 80) as folder:
        assert folder.parent == Path("/tmp")
        assert list(deep.iterdir()) == []
    with temporary.own_folder("trainserve-test-") as folder:
        assert folder.parent == deep
