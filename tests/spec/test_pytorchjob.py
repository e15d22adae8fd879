"""PyTorchJob's types, defaults and rules, without a server."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.server import job, template
from trainserve.kube import names
from trainserve.spec import pytorchjob
from trainserve.spec.pytorchjob import InvalidJob, crd_defaults, default, longest_name, parse, validate, validate_update


def changed(manifest: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the field at `path` set."""
    result = copy.deepcopy(manifest)
    *parents, last = path.split("/")
    at = result
    for key in parents:
        at = at.setdefault(key, {})
    at[last] = value
    return result


def test_every_default_that_upstream_has() -> None:
    full = default(job("a", workers=3))
    spec = full["spec"]
    assert spec["nprocPerNode"] == "auto"
    assert spec["runPolicy"] == {"cleanPodPolicy": "None", "suspend": False}
    for replica_type, replicas in (("Master", 1), ("Worker", 3)):
        replica_spec = spec["pytorchReplicaSpecs"][replica_type]
        assert (replica_spec["replicas"], replica_spec["restartPolicy"]) == (replicas, "OnFailure")
        (container,) = replica_spec["template"]["spec"]["containers"]
        assert container["ports"] == [{"name": "pytorchjob-port", "containerPort": 23456}]


def test_a_port_of_the_name_is_kept_and_others_stay() -> None:
    own = [{"name": "pytorchjob-port", "containerPort": 5}]
    other = [{"name": "progress", "containerPort": 9464}]
    for ports, expected in ((own, own), (other, [*other, {"name": "pytorchjob-port", "containerPort": 23456}])):
        sent = job("a")
        sent["spec"]["pytorchReplicaSpecs"]["Master"]["template"] = template(ports=ports)
        (container,) = default(sent)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
        assert container["ports"] == expected


def test_only_the_training_container_gets_the_port() -> None:
    sent = job("a")
    containers = sent["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    containers.append({"name": "sidecar", "image": "i"})
    filled = default(sent)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    assert ["ports" in container for container in filled] == [True, False]


@pytest.mark.parametrize(
    ("given_", "expected"), [((None, None), (4, 4)), ((2, None), (2, 2)), ((None, 6), (6, 6)), ((2, 6), (2, 6))]
)
def test_an_elastic_range_fills_from_itself_then_from_the_workers(
    given_: tuple[int | None, int | None], expected: tuple[int, int]
) -> None:
    policy = {key: value for key, value in zip(("minReplicas", "maxReplicas"), given_, strict=True) if value}
    elastic = default(job("a", workers=4, elasticPolicy=policy))["spec"]["elasticPolicy"]
    assert (elastic["minReplicas"], elastic["maxReplicas"]) == expected


def test_the_deprecated_count_of_processes_stands_alone() -> None:
    spec = default(job("a", workers=1, elasticPolicy={"nProcPerNode": 2}))["spec"]
    assert "nprocPerNode" not in spec


def test_an_empty_clean_pod_policy_means_none() -> None:
    assert default(job("a", runPolicy={"cleanPodPolicy": ""}))["spec"]["runPolicy"]["cleanPodPolicy"] == "None"


def test_the_typed_view() -> None:
    stored = default(job("a", workers=2, runPolicy={"backoffLimit": 3}))
    stored["metadata"] |= {"namespace": "n", "uid": "u"}
    view = parse({**stored, "status": {"restarts": 1, "progress": {"epoch": 2}}})
    assert (view.name, view.namespace, view.uid) == ("a", "n", "u")
    assert view.spec.run_policy.backoff_limit == 3
    assert view.spec.pytorch_replica_specs["Worker"].replicas == 2
    assert view.status is not None
    assert view.status.progress is not None
    assert (view.status.restarts, view.status.generation, view.status.progress.epoch) == (1, 0, 2)


def test_the_view_dumps_to_what_it_was_read_from() -> None:
    stored = default(job("a", workers=2, elasticPolicy={"rdzvBackend": "c10d"}, runPolicy={"backoffLimit": 3}))
    assert parse(stored).model_dump(by_alias=True, exclude_unset=True) == stored


def test_defaults_of_types_and_of_manifests_agree() -> None:
    bare = parse(job("a", workers=1)).model_dump(by_alias=True, exclude_none=True)
    assert bare["spec"] == crd_defaults(job("a", workers=1))["spec"]


def test_all_problems_are_told_with_their_paths() -> None:
    sent = changed(job("1st", workers=1), "spec/pytorchReplicaSpecs/Master/replicas", 2)
    sent["spec"]["pytorchReplicaSpecs"]["Worker"]["template"] = template(name="trainer")
    with pytest.raises(InvalidJob) as caught:
        validate(sent)
    assert [problem.path for problem in caught.value.problems] == [
        "spec.pytorchReplicaSpecs.Worker.template.spec.containers",
        "spec.pytorchReplicaSpecs.Master.replicas",
        "metadata.name",
    ]
    assert caught.value.path == caught.value.problems[0].path
    assert 'must be named "pytorch", found: trainer' in caught.value.message
    assert caught.value.exit_code == 2


def test_an_unknown_field_is_told_from_a_wrong_value() -> None:
    sent = changed(changed(job("a"), "spec/runPolicy/backofLimit", 1), "spec/runPolicy/suspend", "no")
    with pytest.raises(InvalidJob) as caught:
        parse(sent)
    assert {(problem.path, problem.unknown) for problem in caught.value.problems} == {
        ("spec.runPolicy.backofLimit", True),
        ("spec.runPolicy.suspend", False),
    }


def test_elastic_maximum_counts_for_the_names_length() -> None:
    validate(job("a" * 54, workers=2))
    with pytest.raises(InvalidJob, match="at most 53"):
        validate(job("a" * 54, workers=2, elasticPolicy={"minReplicas": 1, "maxReplicas": 11}))


@given(st.integers(0, 2000))
def test_the_longest_name_just_fits(workers: int) -> None:
    replicas = {"Master": 1} | ({"Worker": workers} if workers else {})
    name = "a" * longest_name(replicas)
    lengths = [
        len(names.replica_name(name, replica_type, index))
        for replica_type, count in replicas.items()
        for index in range(count)
    ]
    assert max(lengths) == 63


@pytest.mark.parametrize(
    ("before", "after"), [("", "kueue.x-k8s.io/multikueue"), ("kubeflow.org/training-operator", None)]
)
def test_the_manager_cannot_change(before: str | None, after: str | None) -> None:
    old, new = (changed(job("a"), "spec/runPolicy/managedBy", value) for value in (before, after))
    with pytest.raises(InvalidJob) as caught:
        validate_update(old, new)
    assert caught.value.path == "spec.runPolicy.managedBy"


def test_an_empty_manager_is_none() -> None:
    validate_update(job("a"), changed(job("a"), "spec/runPolicy/managedBy", ""))


def test_the_queue_cannot_change() -> None:
    old = changed(job("a"), "spec/runPolicy/schedulingPolicy/queue", "one")
    for new in (changed(old, "spec/runPolicy/schedulingPolicy/queue", "two"), job("a")):
        with pytest.raises(InvalidJob) as caught:
            validate_update(old, new)
        assert caught.value.path == "spec.runPolicy.schedulingPolicy.queue"
    validate_update(old, changed(old, "spec/runPolicy/schedulingPolicy/minAvailable", 2))


@pytest.mark.parametrize(("was", "is_", "allowed"), [(False, False, False), (True, False, True), (False, True, True)])
def test_a_template_can_change_where_the_job_is_suspended(was: bool, is_: bool, allowed: bool) -> None:
    old = changed(job("a"), "spec/runPolicy/suspend", was)
    new = changed(job("a"), "spec/runPolicy/suspend", is_)
    new["spec"]["pytorchReplicaSpecs"]["Master"]["template"] = template(image="other")
    if allowed:
        validate_update(old, new)
    else:
        with pytest.raises(InvalidJob, match="suspend"):
            validate_update(old, new)


def test_a_running_job_can_be_scaled() -> None:
    validate_update(job("a", workers=2), job("a", workers=5))
    validate_update(job("a", workers=2), job("a"))


def test_every_field_has_a_description() -> None:
    for name in ("PyTorchJobSpec", "ReplicaSpec", "RunPolicy", "SchedulingPolicy", "ElasticPolicy", "RdzvConf"):
        for field, info in getattr(pytorchjob, name).model_fields.items():
            assert info.description, f"{name}.{field}"


jobs = st.builds(
    lambda workers, policy, elastic, nproc: job(
        "a",
        workers=workers,
        runPolicy=policy,
        **({"elasticPolicy": elastic} if workers else {}),
        **({"nprocPerNode": nproc} if nproc else {}),
    ),
    st.integers(0, 3),
    st.fixed_dictionaries(
        {},
        optional={
            "cleanPodPolicy": st.sampled_from(["", "All", "Running", "None"]),
            "suspend": st.booleans(),
            "backoffLimit": st.integers(0, 5),
        },
    ),
    st.fixed_dictionaries({}, optional={"minReplicas": st.just(1), "maxReplicas": st.integers(1, 9)}),
    st.sampled_from([None, "auto", "gpu", "4"]),
)


@given(jobs)
def test_defaults_are_idempotent_valid_and_change_no_argument(sent: dict[str, Any]) -> None:
    before = copy.deepcopy(sent)
    validate(sent)
    full = default(sent)
    validate(full)
    assert default(full) == full
    assert default(crd_defaults(sent)) == full
    assert sent == before


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ("runPolicy", "pytorchReplicaSpecs", "elasticPolicy", "Master", "Worker", "template", "spec", "name")
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(json_values)
def test_nonsense_is_invalid_and_never_a_crash(spec: Any) -> None:
    sent = {**job("a"), "spec": spec}
    with pytest.raises(InvalidJob):
        validate(crd_defaults(sent))
