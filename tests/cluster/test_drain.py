"""Pods of a training are taken away, or hang: it goes on by itself, and ends with the weights of an undisturbed one.

Real processes on real nodes of a real API server (`platform node run`), under the real controller.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from support.command import command, environment, platform
from support.drain import Training, evict, free_of_charge
from support.kubectl import Kubectl
from support.nodeprocess import AddNode, added_nodes
from support.nodetraining import digits_folder, result, sets, steps_of
from support.operating import Operator
from trainserve.kube import names

pytestmark = [pytest.mark.training, pytest.mark.timeout(1200)]

EPOCHS = 3  # of 6 steps, a checkpoint every second one
STALL_S = 20  # so that a machine busy with other tests stalls nobody
Result: TypeAlias = tuple[str, dict[int, float]]  # as `result` gives it
MASTER, WORKER = "digits-master-0", "digits-worker-0"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def wanted(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What the same training comes to, undisturbed, on a laptop."""
    home = tmp_path_factory.mktemp("home")
    words = [word for each in sets(digits, nodes=2, epochs=EPOCHS) for word in ("--set", each)]
    done = platform("train", *words, "--name", "digits", home=home, timeout_s=500)
    assert done.returncode == 0, done.stderr
    [bundle] = home.rglob("bundle")
    return result(bundle.parent)


@pytest.fixture
def add_node(kubectl: Kubectl, tmp_path: Path) -> Iterator[AddNode]:
    yield from added_nodes(kubectl, tmp_path)


@pytest.fixture
def train(kubectl: Kubectl, digits: Path, tmp_path: Path) -> Callable[..., Training]:
    """Begin a training; `more` as FIELD=VALUE."""

    def begin(*more: str, **changes: Any) -> Training:
        return Training(kubectl, digits, tmp_path, *more, nodes=2, epochs=EPOCHS, **changes)

    return begin


def test_deleted_evicted_twice_and_drained_it_loses_nothing(
    kubectl: Kubectl, operator: Operator, add_node: AddNode, train: Callable[..., Training], wanted: Result
) -> None:
    nodes = [add_node("one", "--cpu", 4), add_node("two", "--cpu", 4)]
    for node in nodes:
        node.wait_ready()
    training = train()

    training.hold()
    kubectl("delete", "pod", MASTER, "--wait=false")
    training.let_go()
    training.until_stopped(1)
    training.until_generation(2)

    # Both, one after the other; and one of the gang that follows, before it has begun to train.
    training.hold()
    evict(kubectl, WORKER)
    evict(kubectl, MASTER)
    training.let_go()
    training.until_stopped(2)
    training.until_running(3)
    evict(kubectl, WORKER)
    training.until_generation(4)

    training.hold()
    host = kubectl.json("get", "pod", WORKER)["spec"]["nodeName"]
    with ThreadPoolExecutor() as pool:
        drain = pool.submit(kubectl, "drain", host, "--delete-emptydir-data", "--timeout=150s", timeout_s=180)
        training.until_deleting(WORKER)
        training.let_go()
        drain.result()
    training.until_running(5)
    assert {pod["spec"]["nodeName"] for pod in training.pods()} == {node.name for node in nodes} - {host}

    assert free_of_charge(training.succeeded()) == 4
    stopped = steps_of(training.output, "stopped")
    assert len(stopped) in {3, 4}, stopped  # the third gang had nothing to lose, or had just begun to train
    # Each goes on where the one before it has stopped; what the third resumes is told only if it came to it.
    resumed = steps_of(training.output, "resume")
    assert [step for step, before in zip(resumed, [0, *resumed], strict=False) if step != before] == stopped
    # 143 of all that had something to lose; of the third gang one may have lost its peer before it was asked itself.
    ends = [line.rpartition(" ")[2] for node in nodes for line in node.said().splitlines() if ": Failed: " in line]
    assert len(ends) == 8, ends
    assert ends.count("143") >= 7, ends
    assert result(training.output) == wanted


def test_while_a_checkpoint_is_written_a_pod_is_asked_to_go_and_killed(
    kubectl: Kubectl, operator: Operator, add_node: AddNode, train: Callable[..., Training], wanted: Result
) -> None:
    node = add_node("one", "--cpu", 4)
    node.wait_ready()
    training = train(grace_s=1)

    # What may not be disrupted is not: the eviction is refused, by itself and as a part of a drain.
    training.hold()
    kubectl("create", "poddisruptionbudget", "whole", f"--selector={names.LABEL_JOB_NAME}=digits", "--min-available=2")
    healthy = ("get", "poddisruptionbudget", "whole", "--output=jsonpath={.status.currentHealthy}")
    training.until(lambda: kubectl(*healthy) == "2", "the budget knows the pods")
    assert "disruption budget" in evict(kubectl, WORKER, refused=True)
    drain = kubectl.run("drain", node.name, "--delete-emptydir-data", "--timeout=3s", timeout_s=120)
    assert drain.returncode != 0
    assert "disruption budget" in drain.stderr
    kubectl("uncordon", node.name)
    assert not any("deletionTimestamp" in pod["metadata"] for pod in training.pods())
    assert training.generation() == 1
    kubectl("delete", "poddisruptionbudget", "whole")

    # A write goes on within the grace period, and counts.
    evict(kubectl, MASTER)
    training.until_deleting(MASTER)
    training.let_go()
    training.until_stopped(1)
    training.until_generation(2)
    [stopped] = steps_of(training.output, "stopped")
    assert steps_of(training.output, "checkpoint")[0] == 2
    [told] = [text for text in training.notices() if "the checkpoint of step 2 took" in text]
    assert "a pod that is stopped has 1 s for the step in progress and a checkpoint: it does not fit" in told

    # One that takes longer is killed with its pod, and what it has written of a checkpoint is none.
    training.hold()
    whole = steps_of(training.output, "checkpoint")[-1]
    kubectl("delete", "pod", MASTER, "--grace-period=1", "--wait=false")
    training.until_generation(3)
    training.until(lambda: f"{MASTER}: Failed: {names.CONTAINER} 137" in node.said(), "it is killed")
    training.let_go()

    assert free_of_charge(training.succeeded()) == 2
    assert steps_of(training.output, "resume") == [stopped, whole]
    assert result(training.output) == wanted


def test_a_rank_that_is_frozen_is_told_counted_and_started_again(
    kubectl: Kubectl,
    operator: Operator,
    add_node: AddNode,
    train: Callable[..., Training],
    wanted: Result,
    tmp_path: Path,
) -> None:
    node = add_node("one", "--cpu", 4)
    node.wait_ready()
    training = train(f"train.stallSeconds={STALL_S}")
    training.hold()
    [ranks] = [json.loads(path.read_text()) for path in node.pods.glob(f"*_{WORKER}_*/ranks.json")]
    os.kill(ranks[0]["pid"], signal.SIGSTOP)
    training.let_go()
    training.until_generation(2)

    # As its user sees it, in the middle of the night.
    run = f"k8s://{kubectl.namespace}/digits"
    known = {**environment(tmp_path / "home"), names.ENV_KUBECONFIG: str(kubectl.kubeconfig)}
    for verb, shown in (("why", "frozen"), ("events", names.REASON_STALLED)):
        done = subprocess.run(command(verb, run), capture_output=True, text=True, check=False, env=known, timeout=240)
        assert done.returncode == 0, done.stderr
        line = next((line for line in done.stdout.splitlines() if f" {shown} " in line), done.stdout)
        assert "rank 1 stalled (exit code 201): is frozen: a signal has stopped its process" in line

    job = training.succeeded()
    assert job["status"]["restarts"] == 1
    assert [(entry["reason"], entry["free"]) for entry in job["status"]["history"]] == [("Stalled", False)]
    [event] = [each for each in kubectl.json("get", "events")["items"] if each["reason"] == names.REASON_STALLED]
    assert (event["type"], event["involvedObject"]["name"]) == ("Warning", "digits")
    assert "Worker 0: rank 1 stalled (exit code 201): is frozen: a signal has stopped its process" in event["message"]
    assert result(training.output) == wanted
