"""The job of a Classifier for a cluster, whole; and what is refused before there is one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.golden import check_golden, golden_input
from trainserve.kube import combinations, names
from trainserve.kube.job import cluster_job
from trainserve.spec.classifier import Classifier
from trainserve.spec.pytorchjob import validate

CASES = ["cluster-claims", "cluster-bucket-gpus", "cluster-elastic", "cluster-everything"]


def _classifier(**sections: Any) -> Classifier:
    spec = {"data": {"path": "pvc://pictures"}, **sections}
    spec["train"] = {"output": "pvc://runs", **spec.get("train", {})}
    return Classifier.model_validate({"metadata": {"name": "flowers"}, "spec": spec})


def _job(case: str) -> dict[str, Any]:
    return cluster_job(Classifier.model_validate(golden_input(case)), namespace="team")


def _replicas(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {kind: each["template"]["spec"] for kind, each in job["spec"]["pytorchReplicaSpecs"].items()}


def _env(pod: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in pod["containers"][0]["env"]}


@pytest.mark.parametrize("case", CASES)
def test_whole_job(case: str, update_golden: bool) -> None:
    classifier = Classifier.model_validate(golden_input(case))
    assert combinations.on_cluster(classifier) == []
    job = _job(case)
    validate(job)
    check_golden(case, [job], update=update_golden)


@pytest.mark.parametrize("case", CASES)
def test_a_rank_reads_the_spec_that_it_is_given(case: str) -> None:
    """launch/work.py parses it with the same type: paths are those of the pod, what is for the cluster is left out."""
    for pod in _replicas(_job(case)).values():
        inside = Classifier.model_validate_json(_env(pod)[names.ENV_SPEC].replace("$$", "$"))
        assert inside.spec.data.path.startswith(("/data", "s3://"))
        assert inside.spec.pod.env is inside.spec.pod.overlay is inside.spec.pod.image is None
        assert inside.spec.train.output is None


def test_one_claim_for_everything_is_one_volume_that_the_master_alone_can_write_to() -> None:
    job = cluster_job(
        _classifier(data={"path": "pvc://all/x"}, train={"output": "pvc://all", "nodes": 2}), namespace="t"
    )
    master, worker = _replicas(job)["Master"], _replicas(job)["Worker"]
    assert [each for each in master["volumes"] if "persistentVolumeClaim" in each] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "all"}}
    ]
    assert [each for each in worker["volumes"] if "persistentVolumeClaim" in each] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "all", "readOnly": True}}
    ]
    assert "/output" not in json.dumps(worker)


@pytest.mark.parametrize(
    ("overlay", "told"),
    [
        (None, str(names.STOP_GRACE_S)),
        ({"spec": {"terminationGracePeriodSeconds": 900}}, "900"),
        ({"spec": {"terminationGracePeriodSeconds": None}}, "30"),  # Kubernetes' own
    ],
)
def test_every_pod_knows_how_long_it_has_to_end(overlay: dict[str, Any] | None, told: str) -> None:
    job = cluster_job(_classifier(train={"nodes": 2}, pod={"overlay": overlay}), namespace="t")
    for pod in _replicas(job).values():
        assert _env(pod)[names.ENV_GRACE] == told == str(pod.get("terminationGracePeriodSeconds", 30))


def test_only_those_who_may_be_rank_0_know_the_output() -> None:
    assert "results" not in json.dumps(_replicas(_job("cluster-bucket-gpus"))["Worker"])
    elastic = _replicas(_job("cluster-elastic"))
    assert list(elastic) == ["Worker"]
    assert _env(elastic["Worker"])[names.ENV_STORE] == "gs://results/flowers"


def test_gpus_are_as_many_processes_unless_it_is_said_otherwise() -> None:
    assert cluster_job(_classifier(pod={"gpus": 4}), namespace="t")["spec"]["nprocPerNode"] == "4"
    job = cluster_job(
        _classifier(pod={"gpus": 4, "gpuResource": "amd.com/gpu"}, train={"nprocPerNode": 2}), namespace="t"
    )
    assert job["spec"]["nprocPerNode"] == "2"
    assert _replicas(job)["Master"]["containers"][0]["resources"]["limits"] == {"amd.com/gpu": "4"}


def test_a_dollar_in_an_env_value_is_a_dollar() -> None:
    job = cluster_job(_classifier(pod={"env": {"PRICE": "$(HOME) $5"}}), namespace="t")
    assert _env(_replicas(job)["Master"])["PRICE"] == "$$(HOME) $$5"


@pytest.mark.parametrize(
    ("sections", "says", "hint"),
    [
        ({"data": {"path": "/home/me/flowers"}}, "spec.data.path: /home/me/flowers is a folder", "--data-store"),
        ({"data": {"path": "pvc://a", "cache": "hostpath:///c"}}, "spec.data.cache: has no effect", "--data-cache"),
        ({"data": {"path": "pvc://a", "digest": f"sha256:{'0' * 64}"}}, "spec.data.digest: has no effect", "URLs"),
        ({"data": {"path": "s3://a/b", "cache": "/c"}}, "spec.data.cache: /c is a path of nobody", "hostpath:///c"),
        ({"train": {"output": None}}, "spec.train.output: is required", "platform context set"),
        ({"model": {"weights": "/x.pth"}}, "spec.model.weights: /x.pth is nothing that a pod", "pvc://CLAIM/path"),
        ({"model": {"weights": "k8s://team/x"}}, "k8s://team/x is nothing that a pod sees", "its output's bundle"),
        ({"pod": {"gpuResource": "nvidia.com/mig-1g.5gb"}}, "spec.pod.gpuResource", "--gpus N"),
        ({"pod": {"gpus": 2, "resourceClaimTemplates": ["x"]}}, "beside what spec.pod.resourceClaimTemplates", "leave"),
        ({"pod": {"gpus": 2, "gpuResource": "nvidia.com/mig-1g.5gb"}}, "2 MIG slices", "--gpus 1 --nodes 2"),
        ({"pod": {"gpus": 2}, "train": {"nprocPerNode": 4}}, "4 processes share 2 GPUs", "--nproc-per-node 2"),
        ({"pod": {"gpus": 2}, "train": {"device": "cpu"}}, "spec.train.device: is cpu", "leave one"),
        ({"pod": {"env": {"RANK": "3"}}}, "spec.pod.env: RANK is set", "another name"),
        ({"pod": {"overlay": {"spec": {"restartPolicy": "Always"}}}}, "spec.pod.overlay.spec.restartPolicy", "explain"),
    ],
)
def test_what_cannot_be_on_a_cluster_is_told_with_a_hint(sections: dict[str, Any], says: str, hint: str) -> None:
    (error,) = combinations.on_cluster(_classifier(**sections))
    assert says in error.message
    assert hint in (error.hint or "")


def test_what_has_no_effect_on_a_laptop_is_said_field_by_field() -> None:
    classifier = _classifier(
        data={"path": "/x"}, pod={"gpus": 2, "env": {"A": "b"}, "hostNetwork": True, "tolerations": [], "queue": "q"}
    )
    assert combinations.no_effect_here(classifier) == [
        "spec.pod.gpus has no effect on this machine, but for 2 processes a node",
        "spec.pod.hostNetwork has no effect on this machine",
        "spec.pod.queue has no effect on this machine",
        "spec.train.output has no effect on this machine",
    ]


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({}, "spec.data.path: pvc://pictures is seen by pods of a cluster only"),
        ({"data": {"path": "/x"}, "train": {"nodes": "2:4"}}, "spec.train.nodes: 2:4"),
    ],
)
def test_what_needs_a_cluster_is_refused_on_a_laptop(sections: dict[str, Any], says: str) -> None:
    (error,) = combinations.on_this_machine(_classifier(**sections))
    assert says in error.message
    assert "--backend kubernetes" in (error.hint or "")
