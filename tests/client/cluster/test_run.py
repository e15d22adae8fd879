"""What a run's PyTorchJob says of it, read back as its pods see it."""

from __future__ import annotations

import pytest

from support.scenario import pytorchjob
from trainserve.client.cluster.run import output_of, spec_of
from trainserve.kube.job import cluster_job
from trainserve.spec.classifier import Classifier


def _classifier(output: str, nodes: int | str) -> Classifier:
    return Classifier.model_validate(
        {
            "apiVersion": "trainserve.dev/v1alpha1",
            "kind": "Classifier",
            "metadata": {"name": "flowers"},
            "spec": {"data": {"path": "s3://in/$(all) $5"}, "train": {"output": output, "nodes": nodes}},
        }
    )


@pytest.mark.parametrize("output", ["pvc://runs", "pvc://runs/a/$b", "s3://out/$(x)/$$y", "gs://out"])
@pytest.mark.parametrize("nodes", [1, 2, "2:4"])
def test_output_and_spec_are_what_was_asked_for_also_with_dollars(output: str, nodes: int | str) -> None:
    job = cluster_job(_classifier(output, nodes), namespace="team")
    assert output_of(job) == f"{output}/flowers"
    assert Classifier.model_validate_json(spec_of(job)).spec.data.path == "s3://in/$(all) $5"


def test_a_job_without_the_container_that_trains_says_nothing_and_breaks_nothing() -> None:
    job = pytorchjob(workers=0)
    job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["name"] = "mine"
    assert (output_of(job), spec_of(job)) == (None, "")
    assert (output_of({"spec": {}}), spec_of({"spec": {}})) == (None, "")
