"""Ctrl-C and SIGTERM in the middle of what writes a file: nothing of it stays, no process either."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import bundles
from support.command import environment
from support.runs import alive, wait_until

# The archiver says who it is, and then never ends.
PACKAGE = """\
import sys
from trainserve.package import mar
mar.ARCHIVER = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
sys.argv = ["platform", "package", "bundle", "-o", "here/digits.mar"]
from trainserve.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tidy")
    bundles.bundle(made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_package_that_is_stopped_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PACKAGE], cwd=folder, env=environment(folder / "home"), stderr=subprocess.PIPE, text=True
    ) as process:
        told = "here/.digits.mar.*.tmp/pid"
        wait_until(lambda: any(path.read_text() for path in folder.glob(told)), "the archiver works", 60)
        (pid,) = (int(path.read_text()) for path in folder.glob(told))
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said.strip()) == (130, "interrupted")
    assert list((folder / "here").iterdir()) == []
    wait_until(lambda: not alive(pid), "the archiver is gone")
