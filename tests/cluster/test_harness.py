"""The tests' own cluster: it says why it does not start, and nothing of it outlives the test run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.clusterbinaries import ROOT
from support.controlplane import ControlPlane
from support.runs import alive, wait_until
from trainserve.errors import EnvironmentProblem

STARTS_ONE = """
import sys, time
from pathlib import Path
from support.guarded import Guarded
started = Guarded([sys.executable, "-c", "import time; time.sleep(300)"], Path(sys.argv[1], "log"))
print(started.pid, flush=True)
time.sleep(300)
"""


def test_a_start_that_fails_shows_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "etcd").write_text("no folder")
    with pytest.raises(EnvironmentProblem, match=r"(?s)etcd has ended.*--- etcd\.log\n.*not a directory"):
        ControlPlane(tmp_path).start()


def test_a_server_ends_when_the_test_run_is_killed(tmp_path: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE, tmp_path],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        text=True,
    )
    assert starter.stdout is not None
    with starter.stdout as said:
        pid = int(said.readline())
    assert alive(pid)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    wait_until(lambda: not alive(pid), "the server is gone", 30)
