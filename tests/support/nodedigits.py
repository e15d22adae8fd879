"""Short trainings on a real node that end with the same weights each time, and what they left."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from support.nodeteam import NodeTeam
from support.real import state_of
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.package.description import WEIGHTS

# Of 160 pictures: 4 steps an epoch, each second one a checkpoint.
SHORT = (
    *("--nodes", 3, "--epochs", 10, "--batch-size", 36, "--image-size", 16, "--crop-scale", "0.9,1.0"),
    *("--env", "OMP_NUM_THREADS=1"),  # the node's cores are all pods'
    *("--workers", 0, "--warmup-epochs", 0, "--lr", 0.05, "--checkpoint-every-steps", 2),
)
STEPS = 40
LONG_S = 1800.0  # of a training, on a machine that is busy with other tests


def weights_digest(team: NodeTeam, run: str) -> str:
    """Of the weights in the run's bundle."""
    (path,) = (team.output / run).rglob(WEIGHTS)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def events(team: NodeTeam, run: str) -> list[dict[str, Any]]:
    path = team.output / run / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def checkpointed(team: NodeTeam, run: str) -> int:
    """The step of the newest checkpoint; 0 before there is one."""
    return max((event["step"] for event in events(team, run) if event["kind"] == "checkpoint"), default=0)


def archives(team: NodeTeam, run: str) -> list[Path]:
    return sorted((team.output / run).rglob("*.mar"))


def succeeded(team: NodeTeam, run: str) -> Manifest:
    """The job once it has ended, as it should."""
    job = team.until(run, names.SUCCEEDED, names.FAILED, timeout_s=LONG_S)
    assert state_of(job) == names.SUCCEEDED, job["status"]
    return job
