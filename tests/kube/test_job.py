from __future__ import annotations

import json

import pytest

from support.golden import check_golden, golden_input
from trainserve.kube import names
from trainserve.kube.job import training_job
from trainserve.launch.agent import Patience
from trainserve.local.podspec import expand
from trainserve.spec.classifier import Classifier
from trainserve.spec.pytorchjob import validate

CASES = ["job-one-node", "job-four-nodes", "job-on-cluster"]


def _render(case: str) -> tuple[Classifier, dict]:
    given = golden_input(case)
    classifier = Classifier.model_validate(given["classifier"])
    return classifier, training_job(classifier, **given["arguments"])


@pytest.mark.parametrize("case", CASES)
def test_whole_job(case: str, update_golden: bool) -> None:
    _, job = _render(case)
    validate(job)
    check_golden(case, [job], update=update_golden)


def test_the_spec_travels_whole_with_the_data_where_the_pod_sees_it() -> None:
    classifier, job = _render("job-four-nodes")
    template = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    env = {entry["name"]: entry["value"] for entry in template["spec"]["containers"][0]["env"]}
    again = Classifier.model_validate(json.loads(env[names.ENV_SPEC]))
    assert again.spec.data.path == "/data/flowers"
    assert again.spec.train == classifier.spec.train
    assert again.metadata == classifier.metadata


def test_only_the_master_knows_the_output() -> None:
    _, job = _render("job-four-nodes")
    specs = {kind: json.dumps(spec) for kind, spec in job["spec"]["pytorchReplicaSpecs"].items()}
    assert "/runs/flowers/output" in specs["Master"]
    assert "output" not in specs["Worker"]


@pytest.mark.parametrize(("case", "asked"), [("job-on-cluster", True), ("job-four-nodes", False)])
def test_only_the_master_of_a_job_on_a_cluster_is_asked_for_its_progress(case: str, asked: bool) -> None:
    _, job = _render(case)
    for kind, spec in job["spec"]["pytorchReplicaSpecs"].items():
        container = spec["template"]["spec"]["containers"][0]
        env = {entry["name"]: entry["value"] for entry in container["env"]}
        ports = {entry["name"]: entry["containerPort"] for entry in container.get("ports", [])}
        here = asked and kind == "Master"
        assert ports == ({"progress": 9464} if here else {})
        assert env.get(names.ENV_PROGRESS_ADDRESS) == (":9464" if here else None)


def test_one_node_has_no_workers() -> None:
    _, job = _render("job-one-node")
    assert list(job["spec"]["pytorchReplicaSpecs"]) == ["Master"]


def test_a_dollar_in_a_path_or_label_reaches_the_rank_as_it_is() -> None:
    """Kubernetes replaces $(NAME) and $$ in env values and commands."""
    given = golden_input("job-one-node")
    given["classifier"]["metadata"]["annotations"] = {"note": "$(HOME) $$ $"}
    paths = {"data_path": "/data/a$$b/$(HOME)", "output": "/runs/$(HOME)/output", "python": "/opt/$(HOME)/python"}
    job = training_job(Classifier.model_validate(given["classifier"]), **{**given["arguments"], **paths})
    container = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    env = {entry["name"]: expand(entry["value"], {"HOME": "/root"}) for entry in container["env"]}
    arrived = Classifier.model_validate(json.loads(env[names.ENV_SPEC]))
    assert arrived.spec.data.path == paths["data_path"]
    assert arrived.metadata.annotations == {"note": "$(HOME) $$ $"}
    assert env[names.ENV_OUTPUT] == paths["output"]
    assert expand(container["command"][0], {"HOME": "/root"}) == paths["python"]


@pytest.mark.parametrize("case", CASES)
def test_a_stopped_pod_has_time_for_a_step_and_a_checkpoint(case: str) -> None:
    _, job = _render(case)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        assert replica["template"]["spec"]["terminationGracePeriodSeconds"] == names.STOP_GRACE_S
    assert Patience().checkpoint_s == names.STOP_GRACE_S
    assert names.STOP_GRACE_S > names.BROKEN_GANG_GRACE_S > names.CANCEL_GRACE_S


def test_each_process_chooses_its_own_network_interface() -> None:
    """The loopback's name is lo on Linux and lo0 on macOS: train/distributed.py looks for it."""
    _, job = _render("job-four-nodes")
    assert "IFNAME" not in json.dumps(job)
