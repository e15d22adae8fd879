"""Training that hangs, for real: the gang is restarted from its checkpoint, and the run says why."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.accidents import why
from support.live import Live, processes, until
from support.pictures import write_classes
from trainserve.local.rundir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    home = tmp_path / "home"
    monkeypatch.setenv("TRAINSERVE_HOME", str(home))
    pictures = write_classes(tmp_path / "shapes", {"red": 300, "green": 300, "blue": 300})
    return Live(home, "hangs", pictures)


def logs(live: Live, pod: str) -> str:
    return (live.folder / "pods" / pod / "pytorch.log").read_text()


def test_a_frozen_rank_and_then_a_hung_data_worker(live: Live) -> None:
    """First SIGSTOP of rank 1, then, in the gang that follows, of a loader process of rank 1."""
    # Few checkpoints and long epochs: what is no step may take ten times as long.
    flags = ("--stall-seconds", 3, "--epochs", 9, "--workers", 1, "--batch-size", 4, "--checkpoint-every-steps", 25)
    with live.training(*flags) as process:
        live.wait_for("step", lambda event: event["step"] >= 30)
        os.kill(rank(live, 1), signal.SIGSTOP)
        until(lambda: generation(live) == 2, "a restart", 60)
        assert "Worker 0: rank 1 stalled (exit code 201): is frozen" in told_cause(live)
        assert "the stacks of all ranks follow" in logs(live, "hangs-worker-0.g1")
        live.wait_for("resume", seconds=60)
        until(lambda: live.events()[-1]["kind"] == "step", "steps after the restart", 60)
        for pid in loaders(rank(live, 1)):
            os.kill(pid, signal.SIGSTOP)
        until(lambda: generation(live) == 3, "a second restart", 60)
        assert "Worker 0: rank 1 stalled (exit code 201): no progress for" in told_cause(live)
        assert "most recent call first" in logs(live, "hangs-master-0.g2"), "the stacks of the other node too"
        found = why(RunDir(live.folder))
        assert [entry["cause"] for entry in found["restarts"]] == ["frozen", "stalled-data"]
        assert "rank 1 was frozen" in found["restarts"][0]["title"]
        os.kill(supervisor(live), signal.SIGKILL)
        process.communicate(timeout=60)
    assert why(RunDir(live.folder))["cause"] == "supervisor-killed"


def generation(live: Live) -> int:
    job = RunDir(live.folder).job() or {}
    return int(job.get("status", {}).get("generation", 0))


def told_cause(live: Live) -> str:
    job = RunDir(live.folder).job() or {}
    return str(job.get("status", {}).get("cause", ""))


def supervisor(live: Live) -> int:
    return int(RunDir(live.folder).supervisor()["pid"])


def rank(live: Live, number: int) -> int:
    found: list[int] = []

    def there() -> bool:
        found[:] = [row["pid"] for row in RunDir(live.folder).ranks() if row["rank"] == number]
        return bool(found)

    until(there, f"rank {number}", 30)
    return found[0]


def loaders(parent: int) -> list[int]:
    """The loader processes that descend from a rank: children of its fork server."""
    parents = {pid: _parent(pid) for pid in processes()}
    servers = [pid for pid, above in parents.items() if above == parent]
    return [pid for pid, above in parents.items() if above in servers]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
