"""One job, a world that does what it likes to it, an API server that fails, and a controller that dies: what holds
after each step, and that it comes to rest once the world does.

Deeper by hand: MACHINE_EXAMPLES=3000 MACHINE_STEPS=60 pytest tests/operator/test_machine.py
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.faults import FAULTS, Fault, Faulty
from support.gangs import GANG_KINDS, groups, serving
from support.kubelet import report
from support.scenario import NAMESPACE, Crash, Scenario, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Invalid, Manifest
from trainserve.kube.podgroup import Gang
from trainserve.operator.pytorchjob import conditions
from trainserve.operator.pytorchjob.decision import STOPPED_DEADLINE_S
from trainserve.operator.pytorchjob.observed import Facilities

pytestmark = pytest.mark.slow

JOB = "flowers"
REPLICAS = ["master-0", "worker-0", "worker-1", "worker-2"]
SETTLED = 40  # passes of a quiet world within which everything is as it should be
LONGEST_PAUSE_S = 61.0

replica = st.sampled_from(REPLICAS)
code = st.sampled_from([0, 65, 137, 139, 143, 143, 200, None])  # few that end the job
losses = st.sampled_from(["delete", "vanish", *3 * ["delete its service"], "take its name", "free a name"])
jobs = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(["ExitCode", "ExitCode", "OnFailure", "Always", "Never"]),
        "master": st.booleans(),
        "workers": st.integers(1, 3),
        "annotations": st.sampled_from([None, None, {names.ANNOTATION_RESTART: names.RESTART_IN_PLACE}]),
        "cleanPodPolicy": st.sampled_from(["All", "Running", "None"]),
    },
    optional={
        "backoffLimit": st.integers(0, 3),
        "activeDeadlineSeconds": st.just(500),
        "ttlSecondsAfterFinished": st.just(300),
    },
)


class Life(RuleBasedStateMachine):
    """The life of a job."""

    scenario: Scenario

    @initialize(how=jobs, begun=st.booleans(), gang=st.sampled_from(["none", "kubernetes"]))
    def begin(self, how: dict[str, Any], begun: bool, gang: Gang) -> None:
        self.how = how
        facilities = Facilities(gang=gang)
        self.scenario = Scenario(pytorchjob(JOB, **how), resources=serving(*GANG_KINDS), facilities=facilities)
        self.server = Faulty(self.scenario.cluster, self._created)
        self.scenario.controller_restarts(self.server)  # type: ignore[arg-type]
        self.scenario.look()
        self.others = [self._create(names.POD, _bystander())]
        self.squatters: list[tuple[names.Kind, Manifest]] = []  # in the way of what the job needs
        self._a_new_job()
        if begun:
            self.controller_works_until_nothing_is_left()
            self.pods_start()
            self.controller_works_until_nothing_is_left()

    def _a_new_job(self) -> None:
        job = self.scenario.job()
        self.uid = "" if job is None else job["metadata"]["uid"]
        self.most = len(_wanted_names(job))
        self.generation = self.restarts = 0
        self.finished: Manifest | None = None

    # What people do.

    @rule(value=st.booleans())
    def people_suspend_or_resume(self, value: bool) -> None:
        if self.uid:
            self.scenario.suspend(value)

    @rule(workers=st.integers(1, 3))
    def people_scale(self, workers: int) -> None:
        if self.uid:
            self.scenario.patch_job({"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": workers}}}})
            self.most = max(self.most, len(_wanted_names(self.scenario.job())))

    @rule(image=st.sampled_from(["localhost/train:2", "localhost/train:3"]), recreate=st.booleans())
    def people_change_the_template_or_begin_anew(self, image: str, recreate: bool) -> None:
        """A template is refused while the job is not suspended."""
        if not self.uid:
            self._create(names.PYTORCHJOB, pytorchjob(JOB, **self.how))
            self._a_new_job()
        elif recreate or self.finished is not None:
            self.scenario.run(self.scenario.cluster.delete(names.PYTORCHJOB, NAMESPACE, JOB))
            self._a_new_job()
        else:
            container = {"name": names.CONTAINER, "image": image, "command": ["train"]}
            replica_specs = {"Worker": {"template": {"spec": {"containers": [container]}}}}
            try:
                self.scenario.patch_job({"spec": {"pytorchReplicaSpecs": replica_specs}})
            except Invalid:
                assert not _is_suspended(self.scenario.job())

    # What happens to pods and services.

    @rule()
    def pods_start(self) -> None:
        self.scenario.run(self.scenario.kubelet.start())

    @rule(name=replica)
    def one_pod_starts(self, name: str) -> None:
        self.scenario.run(self.scenario.kubelet.start(f"{JOB}-{name}"))

    @rule(name=replica, code=code)
    def a_pod_ends(self, name: str, code: int | None) -> None:
        if self._phase(name) == "Running":
            self.scenario.end_pod(name, code)

    @rule(name=replica, how=st.sampled_from(["Evicted", "NodeLost", "SomethingNew", "OOMKilled", "again", "waiting"]))
    def a_pod_fails(self, name: str, how: str) -> None:
        kubelet, full, phase = self.scenario.kubelet, f"{JOB}-{name}", self._phase(name)
        if how == "OOMKilled":
            if phase == "Running":
                message = report(0, 137, self.scenario.now, signal="SIGKILL", oom_kills=1)
                self.scenario.end_pod(name, 137, reason=how, message=message)
        elif how in {"again", "waiting"}:
            pod = self.scenario.pods().get(name)
            if phase == "Running" and pod is not None and pod["spec"]["restartPolicy"] != "Never":
                count = pod["status"]["containerStatuses"][0]["restartCount"] + 1
                self.scenario.run(kubelet.restart_in_place(full, count, waiting=how == "waiting"))
        elif phase in {"Running", "Pending"}:
            self.scenario.run(kubelet.fail(full, how))

    @rule(name=replica, how=losses)
    def something_is_taken_away(self, name: str, how: str) -> None:
        """Also the name that the job needs: by somebody else's object, with all labels of ours."""
        full, cluster = f"{JOB}-{name}", self.scenario.cluster
        if how in {"delete", "vanish"} and self._phase(name):
            grace_s = 0 if how == "vanish" else None
            self.scenario.run(cluster.delete(names.POD, NAMESPACE, full, grace_period_s=grace_s))
        elif how == "delete its service" and name in self.scenario.services():
            if not self._is_squatter(names.SERVICE, name):
                self.scenario.run(cluster.delete(names.SERVICE, NAMESPACE, full))
        elif how == "take its name":
            for kind, there in ((names.POD, self.scenario.pods()), (names.SERVICE, self.scenario.services())):
                if name not in there and len(self.squatters) < 2:
                    self.squatters.append((kind, self._create(kind, _squatter(kind, name))))
        elif how == "free a name" and self.squatters:
            self._free(*self.squatters.pop())

    @rule(name=st.none() | replica)
    def deletions_end(self, name: str | None) -> None:
        self.scenario.run(self.scenario.kubelet.finish_deletions(*([] if name is None else [f"{JOB}-{name}"])))

    # What happens to the controller.

    @rule(part=st.sampled_from(["", "jobs", "pods", "services", "groups"]))
    def controller_looks(self, part: str) -> None:
        """Its caches have caught up with nothing, or with one kind, so that they lag behind each other."""
        if part:
            self.scenario.look(part)
        self._pass()

    @rule()
    def controller_works_until_nothing_is_left(self) -> None:
        for _ in range(6):
            self.scenario.look()
            before = self.scenario.version()
            if not self._pass() and self.scenario.version() == before:
                return

    @rule()
    def controller_restarts(self) -> None:
        self.scenario.controller_restarts(self.server)  # type: ignore[arg-type]
        self.scenario.look()

    @rule(n=st.integers(1, 12), fault=st.sampled_from(FAULTS))
    def a_call_goes_wrong(self, n: int, fault: Fault) -> None:
        self.server.fail(n, fault)
        self.controller_works_until_nothing_is_left()

    @rule(seconds=st.sampled_from([1, 7, 30, 200]))
    def time_passes(self, seconds: int) -> None:
        self.scenario.now += seconds

    # What holds.

    async def _created(self, made: Manifest) -> None:
        """The controller has created something, just now."""
        if made["kind"] != names.POD.kind:
            return
        owner, generation = _controller(made), made["metadata"]["labels"][names.LABEL_GENERATION]
        pods = (await self.scenario.cluster.list(names.POD, NAMESPACE)).items
        others = {pod["metadata"]["labels"][names.LABEL_GENERATION] for pod in pods if _controller(pod) == owner}
        assert others <= {generation}, "two gangs at the same time"  # none where its owner is gone, and it with that
        for job in (await self.scenario.cluster.list(names.PYTORCHJOB, NAMESPACE)).items:
            ended = job["metadata"]["uid"] == owner and conditions.is_finished(job.get("status") or {})
            assert not ended, "a pod of a job that has ended"

    @invariant()
    def at_most_one_gang_and_no_pod_too_many(self) -> None:
        own = self._own_pods()
        assert len({pod["metadata"]["labels"][names.LABEL_GENERATION] for pod in own}) <= 1
        places = [
            (pod["metadata"]["labels"][names.LABEL_REPLICA_TYPE], pod["metadata"]["labels"][names.LABEL_REPLICA_INDEX])
            for pod in own
        ]
        assert len(places) == len(set(places)) <= self.most

    @invariant()
    def counts_only_grow_and_the_end_is_the_end(self) -> None:
        job = self.scenario.job()
        if job is None:
            if self.uid:  # gone by itself, after its time to live
                assert self.finished is not None
                assert "ttlSecondsAfterFinished" in self.how
                self._a_new_job()
            return
        status = job.get("status") or {}
        generation, restarts = status.get("generation", 0), status.get("restarts", 0)
        assert generation >= self.generation
        assert restarts >= self.restarts
        assert restarts <= self.how.get("backoffLimit", restarts)
        self.generation, self.restarts = generation, restarts
        if self.finished is not None:
            assert status == self.finished
        elif conditions.is_finished(status):
            self.finished = status
            assert status["completionTime"]
            assert not conditions.is_true(status, names.RUNNING)
            assert all(counts["active"] == 0 for counts in status["replicaStatuses"].values())

    @invariant()
    def nothing_of_others_is_touched(self) -> None:
        for kind, mine in [*((names.POD, other) for other in self.others), *self.squatters]:
            now = self.scenario.run(self.scenario.cluster.get(kind, NAMESPACE, mine["metadata"]["name"]))
            for part in ("labels", "uid", "ownerReferences"):
                assert now["metadata"].get(part) == mine["metadata"].get(part)
            assert "deletionTimestamp" not in now["metadata"]
            assert "activeDeadlineSeconds" not in now["spec"]

    def teardown(self) -> None:
        if not hasattr(self, "scenario"):
            return
        with self.scenario:
            self.server.heal()
            for squatter in self.squatters:
                self._free(*squatter)
            self.squatters = []
            self._comes_to_rest()
            self.nothing_of_others_is_touched()

    def _comes_to_rest(self) -> None:
        """A kubelet that does its part, and time: within a bounded number of passes the job is as it should be."""
        quiet = 0
        for _ in range(SETTLED):
            before = self.scenario.version()
            self.scenario.look()
            failed = self._pass()
            assert not failed, f"a pass fails in a world without faults: {self.last_error!r}"
            self._kubelet_does_its_part()
            self.at_most_one_gang_and_no_pod_too_many()
            self.counts_only_grow_and_the_end_is_the_end()
            self.scenario.now += LONGEST_PAUSE_S
            quiet = quiet + 1 if self.scenario.version() == before else 0
            if quiet == 3:
                break
        else:
            raise AssertionError(f"not at rest after {SETTLED} passes: {self.scenario.job()}")
        job = self.scenario.job()
        own = self._own_pods()
        owners = {None, self.uid}
        assert all(_controller(pod) in owners for pod in self.scenario.pods().values()), "a pod of a job that is gone"
        event(f"at rest: {'gone' if job is None else self.scenario.state()}")
        if job is None:
            assert own == []
            return
        wanted = {f"{JOB}-{name}" for name in _wanted_names(job)}
        running = {pod["metadata"]["name"] for pod in own if pod["status"].get("phase") == "Running"}
        status = job["status"]
        there = set(groups(self.scenario, names.POD_GROUP))
        if conditions.is_finished(status):
            assert there == set()
            assert running == set()
            assert not any(pod["status"].get("phase", "Pending") == "Pending" for pod in own)
            if self.how["cleanPodPolicy"] == "All":
                assert own == []
        elif _is_suspended(job):
            assert own == []
            assert there == set()
            assert conditions.is_true(status, names.SUSPENDED)
        else:
            assert {pod["metadata"]["name"] for pod in own} == wanted
            done = {
                pod["metadata"]["name"] for pod in own if pod["status"]["phase"] == "Succeeded"
            }  # before the leader
            assert running | done == wanted
            assert {f"{JOB}-{name}" for name in self.scenario.services()} == wanted
            assert conditions.is_true(status, names.RUNNING)
            with_gang = self.scenario.facilities.gang != "none"
            assert there == ({names.pod_group_name(JOB, status["generation"])} if with_gang else set())
            assert sum(counts["active"] for counts in status["replicaStatuses"].values()) == len(running)

    def _kubelet_does_its_part(self) -> None:
        self.scenario.run(self.scenario.kubelet.finish_deletions())
        for pod in self._own_pods():
            name, stopped = pod["metadata"]["name"], pod["spec"].get("activeDeadlineSeconds") == STOPPED_DEADLINE_S
            if stopped and pod["status"].get("phase") in {"Running", "Pending"}:
                self.scenario.run(self.scenario.kubelet.fail(name, "DeadlineExceeded"))
            elif pod["status"].get("phase", "Pending") == "Pending":
                self.scenario.run(self.scenario.kubelet.start(name))
            elif pod["status"].get("phase") == "Running" and _waits_for_its_restart(pod):
                count = pod["status"]["containerStatuses"][0]["restartCount"]
                self.scenario.run(self.scenario.kubelet.restart_in_place(name, count))

    # Small things.

    def _pass(self) -> bool:
        """One pass; whether it failed, and is to be tried again. A controller that dies is replaced at once."""
        try:
            self.scenario.sync()
        except (ApiError, OSError) as error:
            self.last_error: BaseException = error
            return True
        except Crash as error:
            self.last_error = error
            self.controller_restarts()
            return True
        return False

    def _own_pods(self) -> list[Manifest]:
        return [pod for pod in self.scenario.pods().values() if _controller(pod) == self.uid]

    def _phase(self, name: str) -> str:
        pod: Manifest = self.scenario.pods().get(name, {})
        if not pod or self._is_squatter(names.POD, name):
            return ""
        return str(pod["status"].get("phase", "Pending"))

    def _is_squatter(self, kind: names.Kind, name: str) -> bool:
        return any(kind == other and it["metadata"]["name"] == f"{JOB}-{name}" for other, it in self.squatters)

    def _create(self, kind: names.Kind, manifest: Manifest) -> Manifest:
        return self.scenario.run(self.scenario.cluster.create(kind, NAMESPACE, manifest))

    def _free(self, kind: names.Kind, it: Manifest) -> None:
        name = it["metadata"]["name"]
        self.scenario.run(self.scenario.cluster.delete(kind, NAMESPACE, name, grace_period_s=0))


def _is_suspended(job: Manifest | None) -> bool:
    return bool(((job or {}).get("spec", {}).get("runPolicy") or {}).get("suspend"))


def _wanted_names(job: Manifest | None) -> set[str]:
    specs = {} if job is None else job["spec"]["pytorchReplicaSpecs"]
    return {f"{kind.lower()}-{index}" for kind, spec in specs.items() for index in range(spec["replicas"])}


def _controller(manifest: Manifest) -> str | None:
    owners = manifest["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def _waits_for_its_restart(pod: Manifest) -> bool:
    return "waiting" in pod["status"]["containerStatuses"][0]["state"]


def _bystander() -> Manifest:
    return _squatter(names.POD, "worker-9")


def _squatter(kind: names.Kind, name: str) -> Manifest:
    replica_type, _, index = name.partition("-")
    labels = names.replica_labels(JOB, replica_type.capitalize(), int(index)) | {names.LABEL_GENERATION: "1"}
    spec: Manifest = {"containers": [{"name": names.CONTAINER, "image": "i"}]}
    if kind == names.SERVICE:
        spec = {"selector": labels, "ports": [{"name": "p", "port": 1}]}
    metadata = {"name": f"{JOB}-{name}", "labels": labels}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "120")),
    stateful_step_count=int(os.environ.get("MACHINE_STEPS", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
