"""What `platform doctor` says of a machine: right where all is well, and in words where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.runs import clean_env
from support.tinydisk import tiny_disk
from trainserve.machine import cgroup, checks
from trainserve.machine.usage import size_words

GIB = 1 << 30


def test_this_machine_is_well(tmp_path: Path) -> None:
    home = tmp_path / "not" / "there yet"
    found = [checks.python(), checks.loopback(), checks.disk(home), *checks.home_folder(home)]
    assert {check.name: check.verdict for check in found if check.verdict == "missing"} == {}
    assert [check.name for check in found] == ["Python", "loopback", "disk", "home", "locks", "fsync", "clock"]
    assert list(tmp_path.iterdir()) == [], "it has left something"


@pytest.mark.parametrize(
    ("total", "limit", "verdict", "words"),
    [
        (16 * GIB, None, "ok", "16.0 GiB"),
        (16 * GIB, 8 * GIB, "ok", "8.0 GiB of 16.0 GiB: the limit of the cgroup"),
        (16 * GIB, 1 * GIB, "warning", "1.0 GiB of 16.0 GiB"),
        (8 * GIB, 64 * GIB, "ok", "8.0 GiB"),
        (None, None, "ok", "not known"),
    ],
)
def test_memory(total: int | None, limit: int | None, verdict: str, words: str) -> None:
    found = checks.memory(total, limit)
    assert found.verdict == verdict
    assert found.found.startswith(words)


def test_the_memory_limit_of_both_cgroup_versions(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       2048 kB\nMemFree: 1 kB\n")
    assert cgroup.total_memory(tmp_path) == 2 << 20
    for line, folder, name in (
        ("0::/job", "job", "memory.max"),
        ("4:memory:/job", "memory/job", "memory.limit_in_bytes"),
    ):
        (tmp_path / "proc/self/cgroup").write_text(line + "\n")
        file = tmp_path / "sys/fs/cgroup" / folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        for text, limit in (("1073741824\n", GIB), ("max\n", None), ("9223372036854771712\n", None)):
            file.write_text(text)
            assert cgroup.memory_limit(tmp_path) == limit
        file.unlink()


@pytest.mark.parametrize(("limit", "verdict"), [(64, "missing"), (256, "warning"), (1024, "ok"), (-1, "ok")])
def test_open_files(limit: int, verdict: str) -> None:
    found = checks.open_files(limit)
    assert found.verdict == verdict
    assert (found.fix == "ulimit -n 4096") is (verdict != "ok")


@pytest.mark.parametrize(
    ("columns", "encoding", "is_terminal", "verdict"),
    [(120, "utf-8", True, "ok"), (60, "UTF-8", True, "warning"), (60, "utf-8", False, "ok"),
     (120, "ascii", True, "warning"), (80, None, False, "warning")],
)  # fmt: skip
def test_terminal(columns: int, encoding: str | None, is_terminal: bool, verdict: str) -> None:
    assert checks.terminal(columns, encoding, is_terminal=is_terminal).verdict == verdict


def test_completion_is_looked_for_where_the_shell_looks(tmp_path: Path) -> None:
    bash, nobody = {"SHELL": "/bin/bash"}, {"SHELL": "/usr/bin/nologin"}
    assert checks.completion(bash, tmp_path).verdict == "missing"
    assert not checks.completion(bash, tmp_path).stops
    (tmp_path / ".bashrc").write_text('eval "$(platform completion bash)"\n')
    assert checks.completion(bash, tmp_path).verdict == "ok"
    assert checks.completion({"SHELL": "/bin/zsh"}, tmp_path).verdict == "missing"
    assert checks.completion(nobody, tmp_path).verdict == "ok"


def test_a_program_that_is_optional_stops_nothing(tmp_path: Path) -> None:
    found = checks.program("kubectl", "clusters", "get it", path=str(tmp_path))
    assert (found.verdict, found.stops) == ("missing", False)
    (tmp_path / "kubectl").write_text("#!/bin/sh\n")
    (tmp_path / "kubectl").chmod(0o755)
    assert checks.program("kubectl", "clusters", "get it", path=str(tmp_path)).verdict == "ok"


def test_the_file_system_is_that_of_the_longest_mount_point(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\nserver:/x /home nfs4 rw 0 0\n"
        "none /home/a\\040b tmpfs rw 0 0\n/dev/sdb /homework xfs rw 0 0\n"
    )
    wanted = {"/": "ext4", "/home/u": "nfs4", "/home/a b/c": "tmpfs", "/homework/x": "xfs"}
    assert {path: checks.file_system(Path(path), mounts) for path in wanted} == wanted
    assert checks.file_system(Path("/x"), tmp_path / "none") == ""


def test_locks_on_a_shared_file_system_are_a_warning(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x {tmp_path} nfs4 rw 0 0\n")
    locks = next(check for check in checks.home_folder(tmp_path, mounts) if check.name == "locks")
    assert locks.verdict == "warning"
    assert "start a run from one machine only" in locks.fix


def test_locks_that_keep_nobody_out_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "TRY_LOCK", "")
    locks = next(check for check in checks.home_folder(tmp_path) if check.name == "locks")
    assert locks.stops
    assert "keeps nobody out" in locks.found


SHOW = """\
import sys; from pathlib import Path; from trainserve.machine import checks
for check in (checks.disk(Path(sys.argv[1])), *checks.home_folder(Path(sys.argv[1]))):
    print(check.name, check.verdict, check.found)
"""


def test_a_small_and_a_read_only_disk(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "8m") as disk:

        def show() -> list[str]:
            words = [*disk.prefix, sys.executable, "-c", SHOW, str(disk.path / "home")]
            return subprocess.run(
                words, capture_output=True, text=True, check=True, env=clean_env()
            ).stdout.splitlines()

        assert show()[0].startswith(f"disk missing {size_words(8 << 20)} free")
        assert "tmpfs" in show()[1]
        disk.remount("ro")
        assert show()[1:] == [f"home missing {disk.path / 'home'} cannot be written: Read-only file system"]


def test_few_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "cores", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    found = checks.cores()
    assert (found.verdict, found.found) == ("warning", "1 of 8; the cgroup or affinity allows no more")
