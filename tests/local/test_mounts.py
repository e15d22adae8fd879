"""What a command sees through local/mounts.py, run as the shim of a pod runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainserve.local import mounts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's"),
]


def seen(
    tmp_path: Path, script: str, *targets: dict[str, Any], keep: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """What a shell script prints that is started with these mounts, in a folder `here`."""
    root, here = tmp_path / "root", tmp_path / "here"
    for folder in (root, here):
        folder.mkdir(exist_ok=True)
    plan = {"root": str(root), "mounts": targets, "keep": keep, "message": str(tmp_path / "message")}
    words = [sys.executable, "-I", "-S", mounts.__file__, json.dumps(plan), "sh", "-c", script]
    env = {"PATH": os.environ["PATH"]}
    return subprocess.run(words, cwd=here, env=env, capture_output=True, text=True, check=False, timeout=30)


def folder(tmp_path: Path, name: str, **files: str) -> str:
    path = tmp_path / name
    path.mkdir()
    for file, text in files.items():
        (path / file).write_text(text)
    return str(path)


def test_a_folder_is_seen_at_a_path_that_the_machine_does_not_have(tmp_path: Path) -> None:
    data = folder(tmp_path, "data", a="picture")
    found = seen(
        tmp_path,
        "cat /no-such-data/a; cat /usr/share/no-such/deep/a",
        {"source": data, "target": "/no-such-data"},
        {"source": data, "target": "/usr/share/no-such/deep"},
    )
    assert (found.returncode, found.stdout) == (0, "picturepicture"), found.stderr
    assert not Path("/no-such-data").exists()
    assert not Path("/usr/share/no-such").exists()
    assert list((tmp_path / "root").iterdir()) == []


def test_read_only_is_read_only_and_the_rest_is_written_to_the_machines_folder(tmp_path: Path) -> None:
    data, output = folder(tmp_path, "data", a="1"), folder(tmp_path, "output")
    found = seen(
        tmp_path,
        "echo 2 > /data-x/a; echo 3 > /output-x/b; echo 4 > here",
        {"source": data, "target": "/data-x", "readOnly": True},
        {"source": output, "target": "/output-x"},
    )
    assert "Read-only" in found.stderr
    assert Path(data, "a").read_text() == "1"
    assert Path(output, "b").read_text() == "3\n"
    assert (tmp_path / "here/here").read_text() == "4\n"


def test_a_mount_over_a_folder_hides_it_but_for_what_is_kept(tmp_path: Path) -> None:
    empty = folder(tmp_path, "empty")
    kept, hidden = folder(tmp_path, "kept", a="kept"), folder(tmp_path, "hidden", a="hidden")
    above = str(tmp_path.parent)  # hides the whole of tmp_path, the current folder too
    found = seen(tmp_path, f"cat {kept}/a; ls {hidden}; pwd", {"source": empty, "target": above}, keep=(kept,))
    assert found.stdout == f"kept{tmp_path}/here\n"
    assert "No such file" in found.stderr


def test_the_rest_of_the_machine_and_its_user_are_the_same(tmp_path: Path) -> None:
    data = folder(tmp_path, "data")
    script = "id -u; id -g; ls -d /proc/self /usr/bin /dev/null"
    found = seen(tmp_path, script, {"source": data, "target": "/no-such-data"})
    assert found.stdout.split() == [str(os.getuid()), str(os.getgid()), "/dev/null", "/proc/self", "/usr/bin"]


def test_a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    found = seen(tmp_path, "echo ran", {"source": str(tmp_path / "gone"), "target": "/no-such-data"})
    assert (found.returncode, found.stdout) == (mounts.CANNOT, "")
    assert "volumes cannot be mounted" in found.stderr
    assert (tmp_path / "message").read_text() + "\n" == found.stderr


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    plan = {"root": folder(tmp_path, "root"), "mounts": [], "keep": [], "message": str(tmp_path / "message")}
    words = [sys.executable, "-I", "-S", mounts.__file__, json.dumps(plan), "no-such-command"]
    found = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert found.returncode == mounts.CANNOT
    assert "no-such-command" in found.stderr
