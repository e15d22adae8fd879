from __future__ import annotations

from support.scenario import pytorchjob
from trainserve.kube.services import replica_service
from trainserve.spec.pytorchjob import default


def _service(ports: list[dict]) -> dict:
    job = default(pytorchjob())
    job["metadata"]["uid"] = "uid-job"
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["ports"] = ports
    return replica_service(job, "Worker", 1)


def test_a_name_resolves_before_its_pod_is_ready() -> None:
    spec = _service([])["spec"]
    assert spec["clusterIP"] == "None"
    assert spec["publishNotReadyAddresses"] is True


def test_ports_are_those_of_the_container_each_with_a_name() -> None:
    ports = _service([{"name": "pytorchjob-port", "containerPort": 1}, {"containerPort": 2, "protocol": "UDP"}])
    assert ports["spec"]["ports"] == [
        {"name": "pytorchjob-port", "port": 1},
        {"name": "port-2", "port": 2, "protocol": "UDP"},
    ]


def test_the_service_carries_no_generation() -> None:
    labels = _service([])["metadata"]["labels"]
    assert not any("generation" in label for label in labels)
