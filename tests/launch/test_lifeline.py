"""Whatever ends the supervisor, nothing of the run survives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.runs import agent, alive, clean_env, wait_until

SOURCE = """\
import os, signal, time
from trainserve.launch.lifeline import watch
assert watch()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(f"pid-{os.environ['RANK']}", "w").write(str(os.getpid()))
time.sleep(60)
"""


def test_end_of_the_pipe_kills_agent_and_ranks(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    process = agent(
        tmp_path, SOURCE, {"PET_NPROC_PER_NODE": "2", "TRAINSERVE_LIFELINE_FD": str(read_end)}, pass_fds=(read_end,)
    )
    os.close(read_end)
    files = [tmp_path / "pid-0", tmp_path / "pid-1"]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files), "ranks run")
    pids = [int(file.read_text()) for file in files]
    assert process.poll() is None
    os.close(write_end)
    assert process.wait(timeout=10) == -signal.SIGKILL
    wait_until(lambda: not any(alive(pid) for pid in pids), "no rank is left")
    assert process.stdout is not None
    process.stdout.close()


def test_without_a_supervisor_there_is_nothing_to_watch() -> None:
    probe = "from trainserve.launch.lifeline import watch; print(watch())"
    for extra in ({}, {"TRAINSERVE_LIFELINE_FD": "77"}, {"TRAINSERVE_LIFELINE_FD": "x"}):
        done = subprocess.run(
            [sys.executable, "-c", probe],
            env=clean_env(**extra),
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert done.stdout.strip() == "False"
