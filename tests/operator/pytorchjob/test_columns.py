"""The words of `kubectl get`."""

from __future__ import annotations

from typing import Any

import pytest

from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.operator.pytorchjob import columns


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        ({}, None),
        ({"epoch": 3}, "epoch 3"),
        ({"epoch": 3, "epochs": 10, "step": 275, "steps": 1000, "top1": 0.912}, "epoch 3/10, 27.5%, top-1 91.2%"),
        ({"epoch": 0, "step": 0}, "epoch 0, step 0"),
        ({"step": 7, "steps": 0, "stalled": True}, "step 7, stalled"),
    ],
)
def test_progress_in_words(progress: Manifest, words: str | None) -> None:
    status: Manifest = {"progress": progress}
    columns.fill(status)
    assert status.get("progressSummary") == words


def test_nodes_and_eta_through_a_life() -> None:
    told: dict[str, Any] = {"epoch": 1, "etaSeconds": 190.0}
    with Scenario(pytorchjob(workers=3), progress=lambda job: dict(told)) as scenario:
        scenario.settle()
        assert scenario.status()["nodes"] == "0/4"
        assert "eta" not in scenario.status()
        scenario.start_pods()
        assert (scenario.status()["nodes"], scenario.status()["eta"]) == ("4/4", "3m10s")
        scenario.suspend()
        scenario.settle()
        scenario.finish_deletions()
        assert scenario.status()["nodes"] == "0/4"
        assert "eta" not in scenario.status()
        scenario.suspend(False)
        scenario.settle()
        scenario.start_pods()
        scenario.end_pod("master-0", 0)
        scenario.settle()
        assert scenario.status()["nodes"] == "0/4"
        assert scenario.status()["progressSummary"] == "epoch 1"
        assert "eta" not in scenario.status()


def test_a_finished_job_of_another_controller_stays_as_it_is() -> None:
    with Scenario(pytorchjob()) as scenario:
        done = {"type": "Succeeded", "status": "True", "reason": "PyTorchJobSucceeded", "message": "m"}
        status = {"conditions": [done], "progress": {"epoch": 1}}
        cluster, name = scenario.cluster, scenario.name
        scenario.run(cluster.patch(names.PYTORCHJOB, NAMESPACE, name, {"status": status}, subresource="status"))
        scenario.settle()
        assert scenario.status() == status
