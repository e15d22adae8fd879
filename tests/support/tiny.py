"""Runs of a small script in place of training, which begin within a second: `platform resume` starts one."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.runs import job, wait_until
from trainserve.local import process, rundir
from trainserve.local.rundir import RunDir

SLEEP = "import time; print('here', flush=True); time.sleep(60)"
# Ends in order on SIGTERM, as a training rank does.
OBEDIENT = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); " + SLEEP
# Does not end on SIGTERM, and says when it is so.
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP


def tiny_run(name: str, source: str, **options: Any) -> RunDir:
    """A run that was never started, of a job whose nodes run `source`."""
    run = rundir.create(name)
    run.write_job(job(name, [sys.executable, "-u", "-c", source], **options))
    return run


@contextlib.contextmanager
def home_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own for this test; what still runs of it in the end is killed."""
    monkeypatch.setenv("TRAINSERVE_HOME", str(folder))
    try:
        yield folder
    finally:
        for run in rundir.all_runs():
            if run.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(run.supervisor()["pid"], signal.SIGKILL)
                wait_until(lambda run=run: not run.alive(), "supervisor is gone")  # type: ignore[misc]
            process.kill_marked(run.pods_path)
