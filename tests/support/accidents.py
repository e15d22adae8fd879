"""Small runs that go wrong on purpose, through the real supervisor, kubelet and agent, and what `why` says of them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support.command import platform
from support.runs import job, wait_until
from trainserve.local import process, rundir, start
from trainserve.local.rundir import RunDir


class Accident:
    """One run of a job whose ranks run `source`, in the home that TRAINSERVE_HOME names."""

    def __init__(self, name: str, source: str, **options: Any) -> None:
        folder = Path(os.environ["TRAINSERVE_HOME"])
        folder.mkdir(parents=True, exist_ok=True)
        self.script = folder / f"{name}.py"
        self.script.write_text("import os, sys, time, signal\nrank = int(os.environ['RANK'])\n" + source)
        self.run = rundir.create(name)
        changes: Callable[[dict[str, Any]], None] = options.pop("changes", lambda _: None)
        command = options.pop("command", [sys.executable, "-m", "trainserve.launch", str(self.script)])
        manifest = job(name, command, **options)
        manifest["spec"]["runPolicy"]["backoffLimit"] = 0
        changes(manifest["spec"])
        self.run.write_job(manifest)
        start.start(self.run, detach=True)

    def over(self, timeout_s: float = 30) -> dict[str, Any]:
        """What `why` says once the run has ended."""
        wait_until(lambda: not self.run.alive(), f"{self.run.name} ends", timeout_s)
        return why(self.run)

    def rank_pid(self, rank: int) -> int:
        """The process of a rank that runs."""
        found: list[int] = []

        def there() -> bool:
            found[:] = [row["pid"] for row in self.run.ranks() if row["rank"] == rank]
            return bool(found)

        wait_until(there, f"rank {rank} runs", 20)
        return found[0]


def why(run: RunDir) -> dict[str, Any]:
    """`platform why -o json`."""
    done = platform("why", run.name, "-o", "json", home=Path(os.environ["TRAINSERVE_HOME"]))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def end_all() -> None:
    """Nothing of any run of this home is left."""
    for run in rundir.all_runs():
        if run.alive():
            os.kill(run.supervisor()["pid"], signal.SIGKILL)
            wait_until(lambda run=run: not run.alive(), "supervisor is gone")  # type: ignore[misc]
        process.kill_marked(run.pods_path)


def shown(found: Mapping[str, Any]) -> str:
    """Everything that a diagnosis says, for a search in it."""
    return json.dumps(found, ensure_ascii=False)
