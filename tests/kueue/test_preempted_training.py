"""A training that Kueue preempts saves what it has, waits, and goes on from there: real processes on a real node."""

from __future__ import annotations

from pathlib import Path

from support.kubectl import Kubectl
from support.nodeprocess import AddNode
from support.nodetraining import checkpointed, digits_folder, events_of, training
from support.operating import Operator
from support.queues import PRIORITY, QUEUE, make_priority, make_queue, pods_of, running, state
from support.runs import wait_until


def test_a_preempted_training_checkpoints_waits_and_goes_on(
    kubectl: Kubectl, operator: Operator, add_node: AddNode, tmp_path: Path
) -> None:
    queue = make_queue(kubectl, 2)
    urgent = f"{kubectl.namespace}-urgent"
    make_priority(kubectl, urgent, 1000)
    add_node("one", "--cpu", 4).wait_ready()
    data = digits_folder(tmp_path / "data")
    namespace = str(kubectl.namespace)

    low_output, high_output = tmp_path / "low", tmp_path / "high"
    low = training(namespace, data, low_output, nodes=2, epochs=12, name="low")
    low["metadata"]["labels"] = {**low["metadata"].get("labels", {}), QUEUE: queue}
    kubectl.apply(low)
    wait_until(lambda: checkpointed(low_output) >= 2, "the first checkpoint", 180)

    high = training(namespace, data, high_output, nodes=2, epochs=1, name="high")
    high["metadata"]["labels"] = {**high["metadata"].get("labels", {}), QUEUE: queue, PRIORITY: urgent}
    kubectl.apply(high)
    wait_until(lambda: state(kubectl, "low") == "Suspended", "the job of low priority is suspended", 120)
    assert pods_of(kubectl, "low") == []
    saved = checkpointed(low_output)
    wait_until(lambda: state(kubectl, "high") == "Succeeded", "the urgent one ends", 240)

    wait_until(lambda: running(kubectl, "low") == 2, "the preempted one runs again", 120)
    wait_until(lambda: state(kubectl, "low") == "Succeeded", "and ends", 300)
    resumed = [event for event in events_of(low_output) if event["kind"] == "resume"]
    assert [event["step"] for event in resumed] == [saved]
    assert kubectl.json("get", "pytorchjob", "low")["status"].get("restarts", 0) == 0
    assert (low_output / "bundle/model.json").exists()
