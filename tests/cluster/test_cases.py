"""What users of other controllers met, on a real API server: CTL-03 to CTL-08 (CTL-01 and 02 are in test_limits.py)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.command import platform
from support.kubectl import Kubectl, as_text
from support.kwok import ending
from support.operating import Operator
from support.real import Team, condition_of, state_of
from support.scenario import pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Manifest

CLEAN = ("Running", "None", "All")


def in_namespace(job: Manifest, namespace: str) -> Manifest:
    return {**job, "metadata": {**job["metadata"], "namespace": namespace}}


async def test_ctl_03_a_worker_that_fails_for_good_ends_the_rest(operator: Operator, team: Team) -> None:
    for clean in CLEAN:
        job = pytorchjob(clean.lower(), workers=1, policy="Never", cleanPodPolicy=clean)
        await team.create(ending(job, "Worker", 1, "5s"))
    jobs = {clean: await team.until_state(names.FAILED, clean.lower()) for clean in CLEAN}
    await asyncio.sleep(3)  # for what would fail it a second time
    left = {}
    for clean, job in jobs.items():
        pods = await team.children(name=clean.lower())
        left[clean] = {
            pod["metadata"]["name"]: (pod["status"]["phase"], pod["spec"].get("activeDeadlineSeconds")) for pod in pods
        }
        again = await team.job(clean.lower())
        assert condition_of(again, names.FAILED) == condition_of(job, names.FAILED), "it failed once"
        told = [
            event["involvedObject"]["name"]
            for event in await team.events(names.REASON_FAILED)
            for _ in range(event.get("count", 1))
        ]
        assert told.count(clean.lower()) == 1
    assert left == {
        "Running": {"running-worker-0": ("Failed", None)},
        # A deadline that has passed: a kubelet ends the pod's processes and keeps the pod for its log.
        "None": {"none-master-0": ("Running", 1), "none-worker-0": ("Failed", None)},
        "All": {},
    }


def test_ctl_04_a_name_that_no_service_may_have_is_refused(kubectl: Kubectl, namespace: str, tmp_path: Path) -> None:
    done = kubectl.run("apply", "-f", "-", stdin=as_text(in_namespace(pytorchjob("1st-run"), namespace)))
    assert done.returncode == 1
    assert "metadata.name: Invalid value: must be small letters, digits and -, from a letter to a letter" in done.stderr
    assert kubectl("get", "pytorchjobs,pods,services", "-o", "name") == ""

    (tmp_path / "pictures/a").mkdir(parents=True)
    done = platform("train", "--data", tmp_path / "pictures", "--name", "1st-run", home=tmp_path / "home")
    assert done.returncode == 2
    assert "1st-run" in done.stderr
    assert "letter" in done.stderr
    assert not (tmp_path / "home/runs").exists()


async def test_ctl_05_a_long_name_runs_or_is_refused_with_the_longest_allowed(
    kubectl: Kubectl, operator: Operator, team: Team
) -> None:
    for length in (55, 63, 70):
        done = kubectl.run(
            "apply", "-f", "-", stdin=as_text(in_namespace(pytorchjob("a" * length, workers=12), team.namespace))
        )
        assert done.returncode == 1, length
        assert "metadata.name: Invalid value: may have at most 53 letters with so many replicas" in done.stderr
    for length in (40, 53):
        name = "a" * length
        await team.create(pytorchjob(name, workers=12))
        pods = await team.until_pods(13, name=name)
        assert {pod["metadata"]["labels"][names.LABEL_JOB_NAME] for pod in pods} == {name}
        assert len(await team.children(names.SERVICE, name)) == 13
        await team.until_state(names.RUNNING, name)


async def test_ctl_06_defaults_are_those_of_the_training_operator(
    kubectl: Kubectl, operator: Operator, team: Team
) -> None:
    template = {"spec": {"containers": [{"name": names.CONTAINER, "image": "localhost/train:1"}]}}
    job = pytorchjob(workers=0)
    job["spec"] = {"pytorchReplicaSpecs": {"Master": {"template": template}, "Worker": {"template": template}}}
    kubectl.apply(in_namespace(job, team.namespace))
    spec = (await team.job())["spec"]
    for replica in spec["pytorchReplicaSpecs"].values():
        assert (replica["replicas"], replica["restartPolicy"]) == (1, "OnFailure")
    assert (spec["runPolicy"]["cleanPodPolicy"], spec["runPolicy"]["suspend"]) == ("None", False)
    for pod in await team.until_pods(2):
        [container] = pod["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {names.PORT_NAME: names.PORT}
    text = kubectl("explain", "pytorchjob.spec.pytorchReplicaSpecs.restartPolicy")
    assert "OnFailure" in text.split("DESCRIPTION:")[1]


def test_ctl_07_a_container_of_another_name_is_refused_with_the_expected_one(kubectl: Kubectl, namespace: str) -> None:
    job = in_namespace(pytorchjob(), namespace)
    containers = [{"name": name, "image": "localhost/train:1"} for name in ("trainer", "sidecar")]
    job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"] = containers
    done = kubectl.run("apply", "-f", "-", stdin=as_text(job))
    assert done.returncode == 1
    assert "spec.pytorchReplicaSpecs" in done.stderr
    assert 'one container must be named "pytorch"' in done.stderr


async def test_ctl_08_an_elastic_policy_without_workers_is_refused_and_the_next_job_runs(
    kubectl: Kubectl, operator: Operator, team: Team
) -> None:
    bad = {
        "elasticPolicy needs pytorchReplicaSpecs.Worker": pytorchjob(workers=0, elastic={"maxReplicas": 2}),
        "minReplicas is more than maxReplicas": pytorchjob(elastic={"minReplicas": 3, "maxReplicas": 2}),
    }
    for words, job in bad.items():
        done = kubectl.run("apply", "-f", "-", stdin=as_text(in_namespace(job, team.namespace)))
        assert done.returncode == 1
        assert words in done.stderr
        assert "spec.elasticPolicy" in done.stderr
    await team.create(pytorchjob(workers=1))
    await team.until_state(names.RUNNING)
    assert state_of(await team.job()) == names.RUNNING
    assert operator.get("/healthz"), "the controller that saw all this still lives"
