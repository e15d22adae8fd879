"""`platform why` of runs on a real API server: what keeps them from running, in the server's and the scheduler's words.

Where a kubelet would say it, the test writes what a kubelet writes into the pod's status and Events.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from support.kubectl import Kubectl
from support.kwok import on_own_nodes
from support.operating import Operator
from support.real import Team
from support.scenario import pytorchjob
from support.testserver import Server
from trainserve.client.cluster.connect import Place, Session
from trainserve.client.cluster.patience import Patience
from trainserve.client.cluster.run import ClusterRun
from trainserve.client.cluster.why import why
from trainserve.client.listener import Listener
from trainserve.kube import names
from trainserve.kube.client import KubeCluster
from trainserve.kube.cluster import Manifest
from trainserve.kube.names import Kind
from trainserve.observe.why.diagnose import Diagnosis

WITHIN_S = 60.0
Nodes = Callable[..., list[str]]
Change = Callable[[Manifest], object]


async def until_known(team: Team, cause: str, name: str = "flowers") -> Diagnosis:
    """The diagnosis of the job, once it names this cause."""
    assert isinstance(team.cluster, KubeCluster)
    session = Session(team.cluster, Patience(lambda _: None), Listener())
    run = ClusterRun(Place(None, team.namespace), name)
    give_up = time.monotonic() + WITHIN_S
    while (found := await why(session, run)).cause != cause:
        assert time.monotonic() < give_up, f"not {cause}: {found.cause}: {found.title}"
        await asyncio.sleep(0.3)
    assert found.advice
    assert found.run == f"k8s://{team.namespace}/{name}"
    return found


def job_with(change: Change | None = None, workers: int = 1, **how: Any) -> Manifest:
    job = pytorchjob(workers=workers, **how)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        if change is not None:
            change(replica["template"]["spec"])
    return job


def resources(**limits: str) -> Change:
    return lambda spec: spec["containers"][0].update(
        resources={"limits": {name.replace("_", "/", 1): value for name, value in limits.items()}}
    )


def claim(name: str) -> Change:
    return lambda spec: spec.update(volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": name}}])


MISSING: dict[str, tuple[Change, str, str]] = {
    "memory": (resources(memory="9000Gi"), "insufficient", "memory is missing"),
    "gpu": (resources(**{"nvidia.com_gpu": "2"}), "insufficient", "nvidia.com/gpu"),
    "zone": (lambda spec: spec["nodeSelector"].update({"zone": "moon"}), "selector", "no node matches"),
    "taint": (lambda spec: spec.update(tolerations=[]), "taint", "a taint that it does not tolerate"),
    "claim": (claim("pictures"), "claim-missing", "the claim pictures, which does not exist"),
}


async def test_what_the_scheduler_says_is_missing(operator: Operator, team: Team, nodes: Nodes) -> None:
    nodes(2, {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"})

    async def one(name: str, change: Change, cause: str, says: str) -> None:
        def on_nodes(spec: Manifest) -> None:
            spec.update(on_own_nodes(spec, team.namespace))
            change(spec)

        await team.create(job_with(on_nodes, name=name))
        assert says in (await until_known(team, cause, name)).title

    await asyncio.gather(*(one(name, *case) for name, case in MISSING.items()))


async def test_a_claim_without_a_volume(operator: Operator, team: Team, nodes: Nodes) -> None:
    nodes(1, {})
    spec = {"accessModes": ["ReadOnlyMany"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "pictures"}, "spec": spec}
    await team.cluster.create(Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"), team.namespace, body)

    def wanted(spec: Manifest) -> None:
        spec.update(on_own_nodes(spec, team.namespace))
        claim("pictures")(spec)

    await team.create(job_with(wanted))
    assert "no volume yet" in (await until_known(team, "claim-unbound")).title


async def test_what_a_pod_names_and_is_not_there(operator: Operator, team: Team) -> None:
    absent = {
        "serviceAccountName": "service-account",
        "priorityClassName": "priority-class",
        "runtimeClassName": "runtime-class",
    }

    async def one(field: str, cause: str) -> None:
        await team.create(job_with(lambda spec: spec.update({field: "robot"}), name=cause))
        assert "robot does not exist" in (await until_known(team, f"{cause}-missing", cause)).title

    await asyncio.gather(*(one(*each) for each in absent.items()))


@pytest.mark.parametrize(
    ("kind", "body", "cause", "says"),
    [
        (
            Kind("", "v1", "ResourceQuota", "resourcequotas"),
            {"spec": {"hard": {"count/pods": "0"}}},
            "quota",
            "it allows count/pods=0, count/pods=0 is used, a pod wants count/pods=1 more",
        ),
        (
            Kind("", "v1", "ResourceQuota", "resourcequotas"),
            {"spec": {"hard": {"limits.memory": "8Gi"}}},
            "quota-needs-limits",
            "limits.memory",
        ),
        (
            Kind("", "v1", "LimitRange", "limitranges"),
            {"spec": {"limits": [{"type": "Container", "min": {"memory": "1Gi"}}]}},
            "limit-range",
            "minimum memory usage per Container",
        ),
    ],
    ids=["quota", "limits", "range"],
)
async def test_rules_of_the_namespace(
    operator: Operator, team: Team, kind: Kind, body: Manifest, cause: str, says: str
) -> None:
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "few"}, **body}
    await team.cluster.create(kind, team.namespace, body)
    if kind.kind == "ResourceQuota":
        async with asyncio.timeout(60):
            while not (await team.cluster.get(kind, team.namespace, "few")).get("status", {}).get("hard"):
                await asyncio.sleep(0.1)
    await team.create(job_with(resources(memory="1Mi") if kind.kind == "LimitRange" else None))
    assert says in (await until_known(team, cause)).title


async def test_pod_security(operator: Operator, team: Team, kubectl: Kubectl) -> None:
    kubectl("label", "namespace", team.namespace, "pod-security.kubernetes.io/enforce=restricted")
    await team.create(job_with(lambda spec: spec.update(hostNetwork=True)))
    assert "Pod Security restricted" in (await until_known(team, "pod-security")).title


async def test_an_admission_policy(operator: Operator, team: Team, kubectl: Kubectl) -> None:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}}
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": team.namespace},
        "spec": {
            "matchConstraints": {"namespaceSelector": selector, "resourceRules": rules},
            "validations": [{"expression": "false", "message": "no pods on Wednesdays"}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": team.namespace},
        "spec": {"policyName": team.namespace, "validationActions": ["Deny"]},
    }
    try:
        kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy, binding]}))
        await asyncio.sleep(2)  # a policy is in force when the server has compiled it
        await team.create(job_with())
        assert "no pods on Wednesdays" in (await until_known(team, "admission-policy")).title
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            kubectl("delete", kind, team.namespace, "--ignore-not-found")


async def test_a_webhook_that_does_not_answer(operator: Operator, team: Team, kubectl: Kubectl) -> None:
    webhook = {
        "name": "guard.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 2,
    }
    body = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": team.namespace},
        "webhooks": [webhook],
    }
    try:
        kubectl("apply", "-f", "-", stdin=json.dumps(body))
        await team.create(job_with())
        assert "guard.example.com does not answer" in (await until_known(team, "admission-webhook")).title
    finally:
        kubectl("delete", "validatingwebhookconfiguration", team.namespace, "--ignore-not-found")


async def test_a_name_that_somebody_has(operator: Operator, team: Team) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "flowers-master-0"}}
    await team.cluster.create(
        names.POD, team.namespace, {**pod, "spec": {"containers": [{"name": "a", "image": "localhost/a:1"}]}}
    )
    await team.create(job_with())
    assert "flowers-master-0 exists and belongs to somebody else" in (await until_known(team, "name-taken")).title


async def test_states_that_no_pod_explains(operator: Operator, team: Team, nodes: Nodes) -> None:
    nodes(1, {})
    await team.create(job_with(lambda spec: spec.update(on_own_nodes(spec, team.namespace)), suspend=True))
    assert "suspend is true" in (await until_known(team, "suspended")).title
    await team.patch({"metadata": {"labels": {names.LABEL_KUEUE_QUEUE: "gpus"}}})
    assert "waits in the queue gpus" in (await until_known(team, "queued")).title
    await team.patch({"spec": {"runPolicy": {"suspend": False}}})
    await team.until_state(names.RUNNING)
    await until_known(team, "none")
    await team.patch({"spec": {"runPolicy": {"activeDeadlineSeconds": 1}}})
    assert "longer than its deadline" in (await until_known(team, "deadline")).title


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda job: job["spec"].update(runPolicy={"managedBy": "kueue.x-k8s.io/multikueue"}), "managed-elsewhere"),
        (
            lambda job: job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0].update(
                imagePullPolcy="Never"
            ),
            "job-invalid",
        ),
        (lambda job: job["metadata"].update(annotations={names.ANNOTATION_VERSION: "999.0.0"}), "version-skew"),
    ],
    ids=["managed", "invalid", "version"],
)
async def test_jobs_that_nothing_is_begun_of(operator: Operator, team: Team, change: Change, cause: str) -> None:
    job = job_with()
    change(job)
    await team.create(job)
    await until_known(team, cause)


async def test_a_job_that_no_controller_looks_at(team: Team) -> None:
    await team.create(job_with())
    found = await until_known(team, "no-controller")
    assert team.namespace in found.title


def waiting(reason: str, message: str, container: str = names.CONTAINER) -> Manifest:
    status = {"name": container, "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    return {
        "phase": "Pending",
        "containerStatuses": [{**status, "state": {"waiting": {"reason": reason, "message": message}}}],
    }


def ended(code: int, reason: str = "Error", message: str = "") -> Manifest:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"name": names.CONTAINER, "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    terminated = {"exitCode": code, "reason": reason, "message": message, "startedAt": now, "finishedAt": now}
    return {"phase": "Failed", "containerStatuses": [{**status, "state": {"terminated": terminated}}]}


def agent(code: int, message: str, **more: Any) -> Manifest:
    """How a container ends whose agent says which rank failed."""
    return ended(
        code,
        message=json.dumps(
            {"rank": 1, "exitCode": code, "time": time.time(), "cause": f"rank 1 failed (exit code {code})",
             "message": message, **more}
        ),
    )  # fmt: skip


KUBELET: list[tuple[str, Manifest, tuple[str, str] | None, str, str]] = [
    ("image", waiting("ErrImagePull", 'rpc error: code = NotFound desc = failed to pull and unpack image '
     '"ghcr.io/a/b:9": '
     'failed to resolve reference "ghcr.io/a/b:9": ghcr.io/a/b:9: not found'), None, "image-not-found",
     "ghcr.io/a/b:9"),
    ("denied", waiting("ImagePullBackOff", 'Back-off pulling image "ghcr.io/a/b:9": ErrImagePull: failed to authorize: '
     "failed to fetch anonymous token: unexpected status: 403 Forbidden"), None, "image-denied", "does not let"),
    ("registry", waiting("ErrImagePull", 'failed to do request: Head "https://registry.local/v2/a": dial tcp: lookup '
     "registry.local: no such host"), None, "registry-unreachable", "cannot reach the registry"),
    ("name", waiting("InvalidImageName", 'Failed to apply default image tag "A B": couldn\'t parse image name "A B"'),
     None, "image-name", "no valid name"),
    ("never", waiting("ErrImageNeverPull", 'Container image "localhost/a:1" is not present with pull policy of Never'),
     None, "image-absent", "localhost/a:1"),
    ("secret", waiting("CreateContainerConfigError", 'secret "s3-keys" not found'), None, "secret-missing", "s3-keys"),
    ("config", waiting("CreateContainerConfigError", 'configmap "nccl" not found'), None, "configmap-missing", "nccl"),
    ("root", waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"), None,
     "root-refused", "runs as root"),
    ("command", waiting("RunContainerError", 'exec: "pyhton": executable file not found in $PATH'), None,
     "command-not-found", "pyhton"),
    ("pull-secret", waiting("ContainerCreating", ""), ("FailedToRetrieveImagePullSecret",
     "Unable to retrieve some image pull secrets (regcred); attempting to pull the image may not succeed."),
     "pull-secret-missing", "regcred"),
    ("mount", waiting("ContainerCreating", ""), ("FailedMount",
     'MountVolume.SetUp failed for volume "data" : hostPath type check failed: /data is not a directory'),
     "mount-failed", "not a directory"),
    ("attached", waiting("ContainerCreating", ""), ("FailedAttachVolume",
     'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node'), "volume-in-use",
     "another node"),
    ("sandbox", waiting("ContainerCreating", ""), ("FailedCreatePodSandBox",
     'Failed to create pod sandbox: no runtime for "nvidia" is configured'), "sandbox", "no runtime"),
    ("oom", ended(137, "OOMKilled"), None, "out-of-memory", "the limit is 2Gi"),
    ("oom-child", agent(1, "DataLoader worker (pid 7) is killed by signal: Killed", oomKills=1, peakMib=900), None,
     "out-of-memory", "a process that it had started (the limit is 2Gi, its largest process had 900 MiB)"),
    ("preempted", {**ended(143), "conditions": [{"type": "DisruptionTarget", "status": "True", "reason":
     "PreemptionByScheduler", "message": "default-scheduler: preempting to accommodate a higher priority pod"}]}, None,
     "preempted", "higher priority"),
    ("shutdown", {"phase": "Failed", "reason": "Terminated", "message": "Pod was terminated in response to imminent "
     "node shutdown."}, None, "node-shut-down", "imminent node shutdown"),
    ("evicted", {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. Threshold "
     "quantity: 100Mi, available: 80Mi. "}, None, "evicted-memory", "too little memory"),
    ("ephemeral", {"phase": "Failed", "reason": "Evicted", "message": "Pod ephemeral local storage usage "
    "exceeds the total"
     " limit of containers 1Gi. "}, None, "evicted-disk", "no disk left"),
    ("shm", {"phase": "Failed", "reason": "Evicted", "message": 'Usage of EmptyDir volume "trainserve-shm" exceeds the '
     'limit "64Mi". '}, None, "evicted-volume-full", "trainserve-shm"),
    ("dns", agent(200, "rank 1: the master flowers-master-0:23456 has no address: Name or service not known (45 "
    "tries in "
     "45 s)"), None, "dns", "could not look up"),
    ("policy", agent(200, "preflight: rank 1 (flowers-worker-0): cannot connect to rank 0 (flowers-master-0, "
     "10.0.0.4:4711): no answer"), None, "ranks-cut-off", "cannot connect to rank 0"),
    ("shm-small", agent(3, "preflight: rank 1 (flowers-worker-0): shared memory too small: /dev/shm has 64.0 "
    "MiB free, and "
     "the loader processes need 900 MiB; raise spec.pod.sharedMemory"), None, "shared-memory", "64.0 MiB"),
    ("output", agent(3, "preflight: rank 0 (flowers-master-0): no permission to write to the output /output/a: /output "
     "belongs to 0:0 with mode 0750, and this process is 1000:1000"), None, "output-not-writable", "0:0 with "
     "mode 0750"),
    ("crash", agent(1, "ValueError: bad", traceback='Traceback (most recent call last):\n  File "/app/t.py", '
     'line 3, in f\n'
     "    g()\nValueError: bad"), None, "exception", "ValueError: bad"),
    ("data", agent(65, "no pictures in /data"), None, "data-wrong", "no pictures in /data"),
    ("stall", agent(201, "no progress for 60 s in training after step 7 (data.py:3 in f)"), None, "stalled",
     "no progress"),
]  # fmt: skip


async def test_what_a_kubelet_says(operator: Operator, team: Team) -> None:
    node = f"{team.namespace}-of-nobody"  # no kubelet looks after it, real or simulated: the test is its kubelet
    await team.cluster.create(names.NODE, None, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
    at_a_time = asyncio.Semaphore(6)

    def elsewhere(spec: Manifest) -> None:
        spec.update(nodeName=node, restartPolicy="Never")
        spec["containers"][0]["resources"] = {"limits": {"memory": "2Gi"}}

    async def one(name: str, status: Manifest, event: tuple[str, str] | None, cause: str, says: str) -> None:
        async with at_a_time:
            await team.create(job_with(elsewhere, name=name, backoffLimit=0))
            await team.until_pods(2, phase="Pending", name=name)
            if event is not None:
                await tell(team, f"{name}-worker-0", *event)
            await team.set_status(f"{name}-worker-0", status)
            found = await until_known(team, cause, name)
            assert says in found.title, name
            if status["phase"] == "Failed" and found.state == names.FAILED:
                await forgotten(team, found, name)

    try:
        await asyncio.gather(*(one(*case) for case in KUBELET))
    finally:
        await team.cluster.delete(names.NODE, None, node)


async def tell(team: Team, pod: str, reason: str, message: str) -> None:
    """An Event about a pod, as its kubelet writes it."""
    found = await team.cluster.get(names.POD, team.namespace, pod)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event: Manifest = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": f"{pod}.1"}, "type": "Warning"}
    event |= {"reason": reason, "message": message, "firstTimestamp": now, "lastTimestamp": now, "count": 1}
    event["involvedObject"] = {
        "kind": "Pod", "namespace": team.namespace, "name": pod, "uid": found["metadata"]["uid"]
    }  # fmt: skip
    await team.cluster.create(names.EVENT, team.namespace, {**event, "source": {"component": "kubelet"}})


async def forgotten(team: Team, before: Diagnosis, name: str) -> None:
    """What is known while there are pods is known when they are gone: from the job's condition."""
    for pod in await team.children(name=name):
        await team.remove(pod["metadata"]["name"])
    assert (await until_known(team, before.cause, name)).cause == before.cause


async def test_drained_and_preempted(operator: Operator, team: Team, nodes: Nodes) -> None:
    nodes(1, {"cpu": "2"})
    (low, high) = (f"{team.namespace}-low", f"{team.namespace}-high")
    classes = Kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
    for name, value in ((low, 1), (high, 1000)):
        body = {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
        }
        await team.cluster.create(classes, None, body)

    def small(spec: Manifest) -> None:
        spec.update(on_own_nodes(spec, team.namespace))
        resources(cpu="1")(spec)
        spec["priorityClassName"] = low

    try:
        await team.create(job_with(small))
        await team.until_pods(2)
        await evict(team, "flowers-worker-0")
        await team.until_pods(2, generation=2)
        found = await until_known(team, "none")
        assert [restart.cause for restart in found.restarts] == ["drained"]
        urgent: Manifest = {"containers": [{"name": "a", "image": "localhost/a:1"}], "priorityClassName": high}
        urgent = on_own_nodes(urgent, team.namespace)
        resources(cpu="2")(urgent)
        await team.cluster.create(
            names.POD,
            team.namespace,
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "urgent"}, "spec": urgent},
        )
        give_up = time.monotonic() + WITHIN_S
        while True:
            found = await diagnosis(team)
            causes = [restart.cause for restart in found.restarts]
            if causes[0] == "drained" and causes[1:] in (["preempted"], ["pod-deleted"]):
                break  # a simulated kubelet deletes the pod at once: whether its condition is seen is a matter of luck
            assert time.monotonic() < give_up, found
            await asyncio.sleep(0.3)
    finally:
        for name in (low, high):
            await team.cluster.delete(classes, None, name)


async def diagnosis(team: Team) -> Diagnosis:
    assert isinstance(team.cluster, KubeCluster)
    session = Session(team.cluster, Patience(lambda _: None), Listener())
    return await why(session, ClusterRun(Place(None, team.namespace), "flowers"))


async def evict(team: Team, pod: str) -> None:
    """By the Eviction API, as a drain does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": team.namespace}}
    eviction = Kind("", "v1", "Eviction", f"pods/{pod}/eviction")
    await team.cluster.create(eviction, team.namespace, body)


async def test_the_command_says_it(operator: Operator, team: Team, server: Server) -> None:
    await team.create(job_with(lambda spec: spec.update(serviceAccountName="robot")))
    await until_known(team, "service-account-missing")
    run = f"k8s://{team.namespace}/flowers"
    env = {**os.environ, "KUBECONFIG": str(server.kubeconfig)}
    command = [sys.executable, "-m", "trainserve", "why", run]
    told = await asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"{run} (Pending): the service account robot does not exist\n")
    assert f"kubectl --namespace={team.namespace} create serviceaccount robot" in told.stdout
