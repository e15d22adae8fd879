"""A real rank that trains, asked as the controller asks it."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from support import pictures
from support.ranks import Ranks, classifier, free_port
from trainserve.errors import EXIT_OK
from trainserve.kube import names
from trainserve.machine.ports import LOOPBACK
from trainserve.operator.progress import ask_at_address, read_progress

pytestmark = pytest.mark.slow


def test_a_training_rank_tells_how_far_it_is_and_leaves_its_last_numbers(tmp_path: Path) -> None:
    folder = pictures.write_classes(tmp_path / "data", {"red": 21, "blue": 21}, size=8)
    spec = classifier(folder, model={"imageSize": 8}, train={"epochs": 6, "batchSize": 8, "lr": 0.02})
    port = free_port()
    env = {
        names.ENV_PROGRESS_ADDRESS: f"{LOOPBACK}:{port}",
        names.ENV_TERMINATION_LOG: str(tmp_path / "termination-log"),
        names.ENV_GENERATION: "2",
    }
    pod = {"status": {"podIP": LOOPBACK}}
    told: list[dict[str, Any]] = []

    def ask() -> dict[str, Any]:
        try:
            said = read_progress(asyncio.run(ask_at_address(pod, port, lambda address: True)))
        except OSError:  # it has not begun, or has ended
            return {}
        if said:
            told.append(said)
        return said

    def metrics() -> str:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    with Ranks(spec, tmp_path / "output", env=env) as rank:
        rank.wait_for(lambda: ask().get("checkpointStep"))
        text = metrics()
        rank.wait_for(lambda: ask().get("top1") is not None and told[-1]["step"] > told[0].get("step", 0))
        assert rank.codes() == [EXIT_OK], rank.log()
    steps = told[-1]["steps"]
    assert told[0]["epochs"] == 6
    reached = [said.get("step", 0) for said in told]
    assert reached == sorted(reached)
    assert "trainserve_training_generation 2.0\n" in text
    assert "trainserve_training_checkpoint_step " in text
    assert "trainserve_training_checkpoint_timestamp_seconds " in text
    assert "trainserve_training_learning_rate " in text
    assert "gpu_memory" not in text
    last = json.loads((tmp_path / "termination-log").read_text())["progress"]
    assert (last["epoch"], last["step"], last["steps"], last["etaSeconds"]) == (6, steps, steps, 0.0)
    assert last["checkpointStep"] == steps
    assert last["top1"] == rank.events("done")[0]["top1"]
    read_progress(json.dumps(last).encode())
    with pytest.raises(urllib.error.URLError):  # it ends with the process
        metrics()
