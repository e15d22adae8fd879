"""`elasticPolicy.metrics`: the autoscaler that comes, follows the job and goes."""

from __future__ import annotations

from typing import Any

from support.gangs import serving
from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.operator.pytorchjob.observed import Facilities

METRIC = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}


def _scenario(*, autoscaling: bool = True, **elastic: Any) -> Scenario:
    policy = {"minReplicas": 1, "maxReplicas": 4, "metrics": [METRIC], **elastic}
    job = pytorchjob(master=False, workers=2, policy="OnFailure", elastic=policy)
    resources = serving(names.AUTOSCALER) if autoscaling else serving()
    return Scenario(job, resources=resources, facilities=Facilities(autoscaling=autoscaling))


def _autoscalers(scenario: Scenario) -> list[Manifest]:
    return scenario.run(scenario.cluster.list(names.AUTOSCALER, NAMESPACE)).items


def test_it_is_named_as_the_job_and_scales_workers_between_the_limits() -> None:
    with _scenario() as scenario:
        scenario.settle()
        (scaler,) = _autoscalers(scenario)
        assert scaler["metadata"]["name"] == "flowers"
        assert scaler["spec"]["scaleTargetRef"]["kind"] == "PyTorchJob"
        assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (1, 4)
        assert scaler["spec"]["metrics"] == [METRIC]


def test_it_follows_the_policy_and_is_not_written_again_for_how_the_server_writes_amounts() -> None:
    with _scenario() as scenario:
        scenario.settle()
        (scaler,) = _autoscalers(scenario)
        normal = {"spec": {"metrics": [{**METRIC, "resource": {"name": "cpu", "target": {"type": "Value"}}}]}}
        scenario.run(scenario.cluster.patch(names.AUTOSCALER, NAMESPACE, "flowers", normal))
        version = scenario.version()
        scenario.wait(10)
        assert scenario.version() == version
        scenario.patch_job({"spec": {"elasticPolicy": {"maxReplicas": 8}}})
        scenario.settle()
        (changed,) = _autoscalers(scenario)
        assert changed["spec"]["maxReplicas"] == 8
        assert changed["spec"]["metrics"] == [METRIC]
        assert changed["metadata"]["uid"] == scaler["metadata"]["uid"]


def test_a_suspended_job_has_none_and_a_resumed_one_has_it_again() -> None:
    with _scenario() as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.suspend()
        scenario.settle()
        assert _autoscalers(scenario) == []  # at once, while its pods are still going
        assert scenario.pods() != {}
        scenario.finish_deletions()
        assert _autoscalers(scenario) == []
        scenario.suspend(False)
        scenario.settle()
        assert len(_autoscalers(scenario)) == 1


def test_a_finished_job_and_one_without_metrics_have_none() -> None:
    with _scenario() as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.patch_job({"spec": {"elasticPolicy": {"metrics": None}}})
        scenario.settle()
        assert _autoscalers(scenario) == []
        scenario.patch_job({"spec": {"elasticPolicy": {"metrics": [METRIC]}}})
        scenario.settle()
        assert len(_autoscalers(scenario)) == 1
        scenario.end_pod("worker-0", 0)
        scenario.settle()
        assert scenario.state() == "Succeeded"
        assert _autoscalers(scenario) == []


def test_where_there_are_none_it_is_said_once() -> None:
    with _scenario(autoscaling=False) as scenario:
        scenario.settle()
        scenario.start_pods()
        (told,) = scenario.events("NotSupported")
        assert told["message"] == "spec.elasticPolicy.metrics has no effect: there are no autoscalers here"


def test_what_it_sets_is_what_an_elastic_job_has() -> None:
    with _scenario() as scenario:
        scenario.settle()
        scenario.start_pods()
        scenario.patch_job({"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 4}}}})
        scenario.settle()
        assert len(scenario.pods()) == 4
        assert set(scenario.generations().values()) == {"1"}


def test_a_size_outside_of_the_limits_is_what_there_is() -> None:
    job = pytorchjob(master=False, workers=3, policy="OnFailure", elastic={"minReplicas": 1, "maxReplicas": 2})
    with Scenario(job) as scenario:
        scenario.settle()
        assert len(scenario.pods()) == 3
