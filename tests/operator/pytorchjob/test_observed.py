from __future__ import annotations

from typing import Any

import pytest

from trainserve.operator.pytorchjob.reading import observe

JOB = {"metadata": {"uid": "job"}}


def _child(name: str, owners: list[dict[str, Any]] | None, **labels: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "uid": f"uid-{name}", "labels": labels}
    if owners is not None:
        metadata["ownerReferences"] = owners
    return {"metadata": metadata}


@pytest.mark.parametrize(
    "owners",
    [
        None,
        [],
        [{"uid": "another", "controller": True}],
        [{"uid": "job"}],  # an owner, yet not the controller
        [{"uid": "job", "controller": False}, {"uid": "another", "controller": True}],
    ],
)
def test_children_of_others_are_not_seen(owners: list[dict[str, Any]] | None) -> None:
    children = [_child("x", owners, **{"training.kubeflow.org/replica-type": "master"})]
    observed = observe(JOB, children, children)
    assert observed.pods == ()
    assert observed.services == ()


def test_an_owned_pod_that_is_no_replica_is_not_counted() -> None:
    ours = [{"uid": "job", "controller": True}]
    assert (
        observe(JOB, [_child("x", ours), _child("y", ours, **{"training.kubeflow.org/replica-type": "ps"})], []).pods
        == ()
    )


def test_labels_that_are_no_numbers_are_zero() -> None:
    labels = {
        "training.kubeflow.org/replica-type": "worker",
        "training.kubeflow.org/replica-index": "first",
        "trainserve.dev/generation": "-1",
    }
    (pod,) = observe(JOB, [_child("x", [{"uid": "job", "controller": True}], **labels)], []).pods
    assert (pod.title, pod.generation, pod.phase, pod.deleting) == ("Worker 0", 0, "Pending", False)
