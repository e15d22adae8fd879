"""`elasticPolicy.metrics`: the autoscaler that comes, follows the job and goes."""

from __future__ import annotations

from typing import Any

from support.gangs import serving
from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Forbidden, Invalid, Manifest
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


class Refusing:
    """A server that takes no autoscaler, for now or as it is to be."""

    def __init__(self, cluster: Any, error: ApiError) -> None:
        self.cluster = cluster
        self.error = error
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    async def create(self, kind: names.Kind, *args: Any) -> Any:
        self._answer(kind)
        return await self.cluster.create(kind, *args)

    async def patch(self, kind: names.Kind, *args: Any, **how: Any) -> Any:
        self._answer(kind)
        return await self.cluster.patch(kind, *args, **how)

    def _answer(self, kind: names.Kind) -> None:
        if kind == names.AUTOSCALER:
            self.asked += 1
            raise self.error


def test_a_job_whose_autoscaler_is_refused_runs_and_says_so() -> None:
    with _scenario() as scenario:
        server = Refusing(scenario.cluster, Forbidden("no autoscalers for this team"))
        scenario.controller_restarts(server)  # type: ignore[arg-type]
        scenario.settle()
        scenario.start_pods()
        assert scenario.state() == "Running"
        (told,) = scenario.events("FailedCreateHorizontalPodAutoscaler")
        assert told["message"].endswith("flowers: no autoscalers for this team")
        before = server.asked
        for _ in range(10):
            scenario.wait(60)
        assert 8 <= server.asked - before <= 10
        assert scenario.state() == "Running"


def test_a_change_that_is_no_autoscaler_is_told_once_and_keeps_no_pod_from_being_replaced() -> None:
    with _scenario() as scenario:
        scenario.settle()
        scenario.start_pods()
        server = Refusing(scenario.cluster, Invalid("spec.metrics[0].resource: must have a target"))
        scenario.controller_restarts(server)  # type: ignore[arg-type]
        scenario.patch_job({"spec": {"elasticPolicy": {"metrics": [{"type": "Resource"}]}}})
        scenario.settle()
        scenario.end_pod("worker-1", None, reason="Evicted")
        scenario.settle()
        scenario.wait(60)
        assert len(scenario.pods()) == 2
        assert all(pod["status"]["phase"] == "Pending" for name, pod in scenario.pods().items() if name == "worker-1")
        (told,) = scenario.events("FailedUpdateHorizontalPodAutoscaler")
        assert told["count"] == server.asked == 1
        scenario.patch_job({"spec": {"elasticPolicy": {"maxReplicas": 3}}})
        scenario.settle()
        assert server.asked == 2  # another change


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
