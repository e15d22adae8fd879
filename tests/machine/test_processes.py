"""A process is known by its pid, its start and its boot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainserve.machine import processes
from trainserve.machine.processes import Identity, boot_id, myself, start_of, state_of


def test_this_process_runs_and_is_written_and_read_back() -> None:
    mine = myself()
    assert mine.is_running()
    assert Identity.from_dict({**mine.to_dict(), "socket": "/tmp/x"}) == mine


@pytest.mark.parametrize("found", [None, [], {}, {"pid": "1", "started": "2", "boot": "b"}, {"pid": 1, "started": "2"}])
def test_what_is_no_record_is_none(found: object) -> None:
    assert Identity.from_dict(found) is None


def test_another_start_or_boot_is_another_process_and_is_not_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        real = Identity(child.pid, start_of(child.pid) or "", boot_id())
        for other in (Identity(child.pid, "1", real.boot), Identity(child.pid, real.started, "yesterday")):
            assert not other.is_running()
            assert not other.kill()
        assert child.poll() is None
        assert real.kill(signal.SIGTERM)
        assert child.wait(10) == -signal.SIGTERM
        assert not real.kill()


def test_a_zombie_does_not_run() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert state_of(child.pid) == "Z"
        assert start_of(child.pid) is None


def test_no_record_kills_process_1_or_a_group() -> None:
    for pid in (-1, 0, 1):
        assert not Identity(pid, "0", boot_id()).kill()


def test_a_name_with_blanks_and_brackets_moves_no_field(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) Z 1 2) S " + " ".join(map(str, range(1, 40))))
    assert start_of(7, tmp_path) == "19"
    assert state_of(7, tmp_path) == "S"
    assert start_of(8, tmp_path) is None
    assert state_of(8, tmp_path) == ""


def test_a_system_without_a_boot_id(tmp_path: Path) -> None:
    assert processes.boot_id(tmp_path) == ""
