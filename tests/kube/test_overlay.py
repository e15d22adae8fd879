"""The overlay of a job's pods: Kubernetes' rules of merging, and what it must leave as it is.

tests/cluster/test_overlay.py compares the merging with an API server's.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.overlays import PATCHES, template
from trainserve.errors import SpecError
from trainserve.kube.job import cluster_job
from trainserve.kube.strategicmerge import PatchError, merged
from trainserve.spec.classifier import Classifier


def _job(overlay: dict[str, Any]) -> dict[str, Any]:
    spec = {
        "data": {"path": "pvc://pictures"},
        "train": {"output": "pvc://runs", "nodes": 2},
        "pod": {"overlay": overlay},
    }
    return cluster_job(Classifier.model_validate({"metadata": {"name": "x"}, "spec": spec}), namespace="team")


def _container(patch: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "pytorch", **patch}]}}


def test_items_are_known_by_their_name() -> None:
    found = merged(template(), PATCHES["env: one changed, one new, one out"])
    env = found["spec"]["containers"][0]["env"]
    assert sorted((each["name"], each["value"]) for each in env) == [("B", "two"), ("C", "c"), ("D", "four")]
    assert found["spec"]["containers"][1] == template()["spec"]["containers"][1]


def test_lists_without_names_and_null_replace_and_take_out() -> None:
    assert merged(template(), PATCHES["tolerations are one value"])["spec"]["tolerations"] == [
        {"key": "c", "operator": "Exists"}
    ]
    assert "nodeSelector" not in merged(template(), PATCHES["a field out"])["spec"]
    assert merged(template(), PATCHES["a mapping replaced"])["spec"]["nodeSelector"] == {"gpu": "yes"}


def test_what_stays_of_a_volume_is_what_is_said() -> None:
    volumes = merged(template(), PATCHES["a volume's source, with what stays"])["spec"]["volumes"]
    assert {"name": "data", "hostPath": {"path": "/mnt"}} in volumes


@pytest.mark.parametrize("name", PATCHES)
def test_neither_template_nor_patch_is_changed_and_twice_is_once(name: str) -> None:
    before, patch = template(), copy.deepcopy(PATCHES[name])
    once = merged(before, patch)
    assert (before, patch) == (template(), PATCHES[name])
    if "order" not in name:
        assert merged(once, patch) == once


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0].name"),
        ({"spec": {"containers": ["x"]}}, "spec.containers[0]"),
        ({"spec": {"nodeSelector": {"$patch": "nix"}}}, "spec.nodeSelector.$patch"),
        ({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}, "spec.containers[0].$patch"),
        ({"spec": {"volumes": [{"name": "data", "$retainKeys": "x"}]}}, "spec.volumes[0].$retainKeys"),
        ({"spec": {"$setElementOrder/volumes": []}}, "spec.$setElementOrder/volumes"),
        ({"spec": {"$nix": 1}}, "spec.$nix"),
        ({"spec": {"$patch": "replace", "containers": [{"image": "x"}]}}, "spec.containers[0].name"),
        ({"spec": {"containers": [{"$patch": "replace", "image": "x"}, {"name": "a"}]}}, "spec.containers[0].name"),
        ({"spec": {"volumes": [{"$patch": "replace", "name": ["x"]}]}}, "spec.volumes[0].name"),
        (_container({"env": [{"$patch": "replace", "value": "x"}]}), "spec.containers[0].env[0].name"),
        (
            _container({"volumeMounts": [{"$patch": "replace", "name": "x"}]}),
            "spec.containers[0].volumeMounts[0].mountPath",
        ),
        ({"spec": {"containers": [{"name": True}]}}, "spec.containers[0].name"),
        ({"spec": {"initContainers": "x"}}, "spec.initContainers"),
        (
            {"spec": {"securityContext": {"$deleteFromPrimitiveList/runAsNonRoot": [1]}}},
            "spec.securityContext.$deleteFromPrimitiveList/runAsNonRoot",
        ),
    ],
)
def test_a_patch_that_cannot_be_merged_is_told_by_its_path(patch: dict[str, Any], path: str) -> None:
    with pytest.raises(PatchError) as caught:
        merged(template(), patch)
    assert caught.value.path == path
    with pytest.raises(SpecError, match=r"^spec\.pod\.overlay\.spec\."):
        _job(patch)


def test_every_pod_of_the_job_has_it() -> None:
    job = _job({"metadata": {"annotations": {"a": "b"}}, "spec": {"schedulerName": "mine"}})
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        assert replica["template"]["metadata"]["annotations"] == {"a": "b"}
        assert replica["template"]["metadata"]["labels"] == {"trainserve.dev/classifier": "x"}
        assert replica["template"]["spec"]["schedulerName"] == "mine"


@pytest.mark.parametrize(
    ("overlay", "path"),
    [
        (_container({"command": ["sh"]}), "spec.containers[pytorch].command"),
        (_container({"args": ["-x"]}), "spec.containers[pytorch].args"),
        (_container({"$patch": "delete"}), "spec.containers[pytorch]"),
        (
            _container({"env": [{"name": "TRAINSERVE_SPEC", "value": "{}"}]}),
            "spec.containers[pytorch].env[TRAINSERVE_SPEC]",
        ),
        (_container({"env": [{"name": "TRAINSERVE_OUTPUT", "$patch": "delete"}]}), "env[TRAINSERVE_OUTPUT]"),
        (_container({"env": [{"name": "RANK", "value": "3"}]}), "spec.containers[pytorch].env[RANK]"),
        (_container({"env": None}), "spec.containers[pytorch].env[TRAINSERVE_SPEC]"),
        (_container({"volumeMounts": None}), "spec.containers[pytorch].volumeMounts[/data]"),
        (_container({"volumeMounts": [{"mountPath": "/data", "name": "other"}]}), "volumeMounts[/data]"),
        ({"spec": {"volumes": [{"name": "data", "$patch": "delete"}]}}, "spec.volumes[data]"),
        ({"spec": {"restartPolicy": "Always"}}, "spec.restartPolicy"),
        ({"spec": {"initContainers": [{"name": "init-pytorch", "image": "x"}]}}, "spec.initContainers[init-pytorch]"),
        ({"spec": {"containers": [{"name": "x", "image": "x"}, {"$patch": "replace"}]}}, "spec.containers[pytorch]"),
        (
            {"metadata": {"labels": {"training.kubeflow.org/job-name": "y"}}},
            "metadata.labels.training.kubeflow.org/job-name",
        ),
        ({"metadata": {"labels": {"trainserve.dev/classifier": "y"}}}, "metadata.labels.trainserve.dev/classifier"),
        ({"metadata": {"name": "y"}}, "metadata.name"),
        ({"metadata": {"labels": {"a": 5}}}, "metadata.labels.a"),
        ({"metadata": {"annotations": {"a": ["x"]}}}, "metadata.annotations.a"),
        ({"spec": {"terminationGracePeriodSeconds": "$(A)"}}, "spec.terminationGracePeriodSeconds"),
        ({"spec": {"terminationGracePeriodSeconds": -1}}, "spec.terminationGracePeriodSeconds"),
        ({"spec": {"terminationGracePeriodSeconds": True}}, "spec.terminationGracePeriodSeconds"),
        ({"spce": {}}, "spce"),
        ({"spec": {"$patch": "delete"}}, "spec.containers[pytorch]"),
        ({"spec": {"containers": None}}, "spec.containers[pytorch]"),
    ],
)
def test_what_fights_the_platform_is_refused_with_its_path(overlay: dict[str, Any], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        _job(overlay)
    assert path in caught.value.message
    assert caught.value.message.startswith("spec.pod.overlay.")
    assert caught.value.hint


def test_all_that_fights_is_listed() -> None:
    with pytest.raises(SpecError) as caught:
        _job({"spec": {"restartPolicy": "Never", **_container({"command": ["sh"], "args": ["x"]})["spec"]}})
    assert len(caught.value.message.splitlines()) == 3


_JSON = st.recursive(
    st.sampled_from(["pytorch", "replace", "delete"])
    | st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "spec",
                    "containers",
                    "env",
                    "volumes",
                    "mountPath",
                    "volumeMounts",
                    "labels",
                    "$patch",
                    "$retainKeys",
                    "metadata",
                ]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["spec", "metadata", "$patch"]), _JSON))
def test_any_overlay_is_merged_or_refused_in_words(overlay: dict[str, Any]) -> None:
    with contextlib.suppress(SpecError):
        _job(overlay)
