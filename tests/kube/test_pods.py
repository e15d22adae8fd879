from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
import threading

import pytest

from support.golden import check_golden, golden_input
from support.scenario import pytorchjob
from trainserve.errors import EXIT_PEER_LOST
from trainserve.kube import names, pods, rendezvous, replicas, services
from trainserve.spec.pytorchjob import default, validate

CASES = ["pods-master-worker", "pods-workers-only", "pods-elastic", "pods-in-place"]


def _job(**how: object) -> dict:
    job = default(pytorchjob(**how))  # type: ignore[arg-type]
    job["metadata"]["uid"] = "uid-job"
    return job


def _env(pod: dict) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in pod["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("case", CASES)
def test_whole_pods_and_services(case: str, update_golden: bool) -> None:
    sent = golden_input(case)
    validate(sent)
    job = default(sent)
    before = copy.deepcopy(job)
    out = [pods.replica_pod(job, kind, index, 3) for kind, index in replicas.replicas(job)]
    out += [services.replica_service(job, kind, index) for kind, index in replicas.replicas(job)]
    assert job == before
    check_golden(case, out, update=update_golden)


def test_env_is_in_upstreams_order_then_ours_after_the_users() -> None:
    job = _job()
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["env"] = [
        {"name": "RANK", "value": "mine"}
    ]
    entries = pods.replica_pod(job, "Worker", 1, 7)["spec"]["containers"][0]["env"]
    assert [entry["name"] for entry in entries] == [
        "RANK",
        "PYTHONUNBUFFERED",
        "MASTER_PORT",
        "PET_MASTER_PORT",
        "MASTER_ADDR",
        "PET_MASTER_ADDR",
        "WORLD_SIZE",
        "RANK",
        "PET_NODE_RANK",
        "PET_NPROC_PER_NODE",
        "PET_NNODES",
        "TRAINSERVE_JOB",
        "TRAINSERVE_JOB_UID",
        "TRAINSERVE_GENERATION",
    ]
    assert entries[7]["value"] == "2"


@pytest.mark.parametrize(("nproc", "world"), [("auto", 3), ("gpu", 3), ("cpu", 3), ("4", 12)])
def test_world_size_counts_processes(nproc: str, world: int) -> None:
    job = _job()
    job["spec"]["nprocPerNode"] = nproc
    assert rendezvous.world_size(job) == world


@pytest.mark.parametrize(
    ("policy", "gang", "in_place"),
    [
        ("Never", "Never", "Never"),
        ("OnFailure", "Never", "OnFailure"),
        ("Always", "Never", "Always"),
        ("ExitCode", "Never", "Never"),
    ],
)
def test_pod_restart_policy(policy: str, gang: str, in_place: str) -> None:
    assert pods.pod_restart_policy(_job(policy=policy), "Worker") == gang
    annotated = _job(policy=policy, annotations={names.ANNOTATION_RESTART: names.RESTART_IN_PLACE})
    assert pods.pod_restart_policy(annotated, "Worker") == in_place
    assert pods.pod_restart_policy(_job(policy=policy, master=False, elastic={}), "Worker") == in_place


@pytest.mark.parametrize(
    ("how", "replica", "expected"),
    [
        ({}, ("Master", 0), None),
        ({}, ("Worker", 0), "flowers-master-0:23456"),
        ({"master": False}, ("Worker", 0), None),
        ({"master": False}, ("Worker", 1), "flowers-worker-0:23456"),
        # The rendezvous store is what answers first in an elastic job: waiting for the master's port would be for ever.
        ({"elastic": {}}, ("Master", 0), "flowers-worker-0:23456"),
        ({"elastic": {}}, ("Worker", 0), None),
        ({"elastic": {"rdzvHost": "store", "rdzvPort": 1}}, ("Worker", 0), "store:1"),
        ({"elastic": {"standalone": True}}, ("Worker", 1), None),
        ({"elastic": {"rdzvBackend": "etcd", "rdzvHost": "etcd"}}, ("Worker", 1), None),
    ],
)
def test_who_waits_for_whom(how: dict, replica: tuple[str, int], expected: str | None) -> None:
    assert rendezvous.wait_for(_job(**how), *replica) == expected


def test_labels_contain_the_services_selector() -> None:
    job = _job()
    for replica in replicas.replicas(job):
        pod, service = pods.replica_pod(job, *replica, 1), services.replica_service(job, *replica)
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        assert service["metadata"]["name"] == pod["metadata"]["name"]


def test_env_value_is_the_last_one() -> None:
    job = _job()
    job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["env"] = [
        {"name": "PET_NNODES", "value": "99"}
    ]
    pod = pods.replica_pod(job, "Master", 0, 1)
    assert pods.env_value(pod, "PET_NNODES") == "3"
    assert pods.env_value(pod, "NOT_THERE") is None


@pytest.mark.parametrize(
    ("command", "interpreter"),
    [
        (["/opt/venv/bin/python", "-m", "train"], "/opt/venv/bin/python"),
        (["python3.12", "train.py"], "python3.12"),
        (["torchrun", "train.py"], "python3"),  # where one Python is installed, this is its name: Debian has no other
        (["/opt/python/bin/python-config"], "python3"),
        (None, "python3"),
    ],
)
def test_the_wait_runs_with_the_python_that_is_there(command: list[str] | None, interpreter: str) -> None:
    job = _job()
    container = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    container.pop("command", None)
    container |= {"command": command} if command else {}
    waiting = pods.replica_pod(job, "Worker", 0, 1)["spec"]["initContainers"][-1]
    assert waiting["command"][:2] == [interpreter, "-c"]


def _wait(address: str, script: str = pods.WAIT_SCRIPT) -> subprocess.Popen[str]:
    environment = {**os.environ, names.ENV_WAIT_FOR: address}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True)


def test_the_wait_ends_when_the_port_answers() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        with _wait(f"127.0.0.1:{port}") as waiting:
            timer = threading.Timer(0.3, reserved.listen)
            timer.start()
            assert waiting.wait(timeout=20) == 0
            timer.join()


def test_the_wait_gives_up_as_a_victim_and_says_for_what() -> None:
    script = pods.WAIT_SCRIPT.replace(str(pods.WAIT_TIMEOUT_S), "0")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with _wait(f"127.0.0.1:{port}", script) as waiting:
            _, told = waiting.communicate(timeout=20)
    assert waiting.returncode == EXIT_PEER_LOST
    assert f"the master 127.0.0.1:{port} did not answer within" in told


def test_a_pod_of_a_large_job_is_made_without_listing_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [_job(workers=9999), _job(workers=9999, master=False)]

    def listed(job: dict) -> list[tuple[str, int]]:
        raise AssertionError("a list of 10,000 for each of 10,000 pods")

    monkeypatch.setattr(replicas, "replicas", listed)
    assert [replicas.leader(job) for job in jobs] == [("Master", 0), ("Worker", 0)]
    for job in jobs:
        pod = pods.replica_pod(job, "Worker", 9998, 1)
        assert pod["metadata"]["name"] == "flowers-worker-9998"
        assert services.replica_service(job, "Worker", 9998)["metadata"]["name"] == "flowers-worker-9998"
