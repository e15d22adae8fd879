"""Files and folders appear whole or not at all; what a killed writer left goes, what a living one holds stays."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainserve.machine import files

KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from trainserve.machine import files
path = Path(sys.argv[1])
if sys.argv[2] == "file":
    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    files.write_text(path, "half")
else:
    with files.new_folder(path) as folder:
        (folder / "part").write_text("half")
        if sys.argv[2] == "wait":
            print("ready", flush=True); sys.stdin.readline()
        else:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_a_killed_writer_left_goes_at_the_next_write(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a[1]"
    code = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path), what], check=False).returncode
    assert code == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".a[1].")
    assert left.endswith(files.UNFINISHED)
    if what == "file":
        files.write_text(path, "whole")
    else:
        with files.new_folder(path) as folder:
            (folder / "all").touch()
    assert names(tmp_path) == ["a[1]"]


def test_what_a_living_writer_holds_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    command = [sys.executable, "-c", KILLED_WRITER, str(path), "wait"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        files.remove_leftovers(tmp_path)
        other.communicate(b"\n")
    assert other.returncode == 0
    assert (path / "part").read_text() == "half"
    assert names(tmp_path) == ["a"]


def test_a_write_that_fails_leaves_the_old_bytes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"n": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"n": float("nan")})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_json(path, {"n": 2})
    assert path.read_text() == '{\n "n": 1\n}\n'
    assert names(tmp_path) == ["a.json"]


def test_text_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from trainserve.machine import files\n"
    code += "files.write_text(Path(sys.argv[1]), 'caf\\u00e9')"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], env=env, check=True)
    assert (tmp_path / "a").read_bytes() == "café".encode()


def test_a_folder_replaces_another_or_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for word in ("old", "new"):
        with files.new_folder(path) as folder:
            (folder / word).touch()
    assert names(path) == ["new"]
    with pytest.raises(OSError, match="not empty"), files.new_folder(path, replace=False) as folder:
        (folder / "other").touch()
    assert names(path) == ["new"]
    with pytest.raises(ZeroDivisionError), files.new_folder(path) as folder:
        raise ZeroDivisionError
    assert names(path) == ["new"]
    assert names(tmp_path) == ["a"]


def test_a_removed_folder_is_never_there_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").touch()
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda *_, **__: None)
        files.remove_folder(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    files.remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_a_published_file_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with files.scratch_folder(path) as folder:
        (folder / "x").write_text("new")
        files.publish(folder / "x", path)
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a"]


def test_a_write_that_fails_names_its_file(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as file:
            files.write_bytes(tmp_path / "a", b"x" * 2000)
        with pytest.raises(OSError, match="File too large") as folder, files.new_folder(tmp_path / "b") as draft:
            (draft / "x").write_bytes(b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (file.value.filename, folder.value.filename) == (str(tmp_path / "a"), str(tmp_path / "b"))
    assert names(tmp_path) == []


def test_a_place_where_nothing_can_be_made_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    """Not by the temporary name, of which nobody has heard."""
    (tmp_path / "file").touch()
    for write in (lambda path: files.write_text(path, "x"), lambda path: files.new_folder(path).__enter__()):
        with pytest.raises(OSError, match=r"Not a directory|File exists") as caught:
            write(tmp_path / "file" / "a")
        assert caught.value.filename in (str(tmp_path / "file" / "a"), str(tmp_path / "file"))
