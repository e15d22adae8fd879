from __future__ import annotations

import json

import pytest

from support.golden import check_golden, golden_input
from trainserve.kube import names
from trainserve.kube.job import training_job
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


def test_one_node_has_no_workers() -> None:
    _, job = _render("job-one-node")
    assert list(job["spec"]["pytorchReplicaSpecs"]) == ["Master"]
