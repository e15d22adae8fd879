"""Runs with small commands in place of training: what tests of a supervisor start and look at."""

from __future__ import annotations

import json
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

# Node 0 listens where the others' init containers wait for it. Each process says when it starts and when it ends.
MEET = """\
import os, socket
if os.environ["RANK"] == "0":
    server = socket.create_server(("127.0.0.1", int(os.environ["MASTER_PORT"])))
    waiting = [server.accept() for _ in range(int(os.environ["PET_NNODES"]) - 1)]
"""
HEAD = (
    """\
import json, os, signal, sys, time
generation, node = os.environ["TRAINSERVE_GENERATION"], os.environ["PET_NODE_RANK"]
def say(what):
    with open(os.environ["RUN"] + "/told", "a") as file:
        file.write(json.dumps([what, int(generation), int(node), os.getpid(), time.time()]) + "\\n")
def stop(*_):
    say("stop")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
"""
    + MEET
    + """
say("start")
"""
)
SLEEP = HEAD + "time.sleep(60)\n"
SLEEP_ONCE = HEAD + "time.sleep(60 if generation == '1' else 0.1)\nsay('end')\n"


def home_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Body of a fixture: a home of its own, and at the end no process of its runs is left."""
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    for run in rundir.all_runs():
        if run.alive():
            os.kill(run.supervisor()["pid"], signal.SIGKILL)
            wait_until(lambda run=run: not run.alive(), "supervisor is gone")
        process.kill_marked(run.pods_path)


def new_run(name: str, source: str, **options: Any) -> RunDir:
    run = rundir.create(name)
    run.write_job(job(name, [sys.executable, "-u", "-c", source], env={"RUN": str(run.path)}, **options))
    return run


def ended(run: RunDir, timeout_s: float = 20.0) -> str:
    wait_until(lambda: not run.alive(), "the run ends", timeout_s)
    return run.state()


def told(run: RunDir) -> list[tuple[str, int, int, int, float]]:
    path = run.path / "told"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def started(run: RunDir, generation: int, nodes: int) -> list[int]:
    """Pids of the generation, once all its nodes have started."""

    def pids() -> list[int]:
        return [pid for what, gen, _, pid, _ in told(run) if what == "start" and gen == generation]

    wait_until(lambda: len(pids()) == nodes, f"{nodes} nodes of generation {generation}")
    return pids()
