"""`platform node run`: the real scheduler binds, pods are processes of this machine, their status follows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.kubectl import Kubectl
from support.nodeprocess import AddNode, Pods, added_nodes
from support.nodetraining import checkpointed, digits_folder, training
from support.operating import Operator
from support.real import Team, condition_of
from support.runs import alive, terminated, wait_until
from trainserve.kube import names
from trainserve.kube.names import EVENT, POD
from trainserve.local.process import marked


@pytest.fixture
def add_node(kubectl: Kubectl, tmp_path: Path) -> Iterator[AddNode]:
    yield from added_nodes(kubectl, tmp_path)


async def test_a_node_offers_what_it_was_told_and_pods_run_on_it(
    add_node: AddNode, team: Team, kubectl: Kubectl
) -> None:
    node = add_node("one", "--cpu", 3, "--memory", "2Gi", "--resource", "nvidia.com/gpu=2", "--label", "zone=here")
    node.wait_ready()
    found = kubectl.json("get", "node", node.name)
    assert found["metadata"]["labels"].items() >= {
        (names.LABEL_HOSTNAME, node.name),
        (names.LABEL_NODE, names.NODE_OF_PROCESSES),
        ("zone", "here"),
    }
    assert found["status"]["allocatable"].items() >= {("cpu", "3"), ("memory", "2Gi"), ("nvidia.com/gpu", "2")}
    assert "run any command as" in node.said()

    pods = Pods(team)
    await pods.create("good", "echo out; echo said > $TRAINSERVE_TERMINATION_LOG; echo here > $TRAINSERVE_POD_DIR/file")
    await pods.create("bad", "exit 65", container_resources={"limits": {"nvidia.com/gpu": 2, "cpu": "1"}})
    await pods.create("killed", "kill -9 $$$$", restartPolicy="Never")
    good = await pods.phase("good", "Succeeded", "Failed")
    assert good["spec"]["nodeName"] == node.name
    assert (terminated(good)["exitCode"], terminated(good)["message"]) == (0, "said\n")
    assert good["status"]["hostIP"] == "127.0.0.1"
    assert "podIP" not in good["status"], (
        "a loopback address is refused in EndpointSlices, with a Warning at the Service"
    )
    assert {c["type"]: c["status"] for c in good["status"]["conditions"]}.items() >= {
        ("PodScheduled", "True"),
        ("Initialized", "True"),
        ("Ready", "False"),
    }
    assert node.log_of("good", "main") == "out\n"
    await asyncio.to_thread(
        wait_until, lambda: f"pod {team.namespace}/good: Succeeded: main 0" in node.said(), "its end"
    )
    assert terminated(await pods.phase("bad", "Succeeded", "Failed"))["exitCode"] == 65
    assert terminated(await pods.phase("killed", "Succeeded", "Failed"))["exitCode"] == 137
    told = [event for event in (await team.cluster.list(EVENT, team.namespace)).items if event["reason"] == "Started"]
    logs = [event["message"] for event in told if event["involvedObject"]["name"] == "good"]
    assert len(logs) == 1
    assert str(node.pods) in logs[0]

    # A third GPU is not there: the scheduler keeps the pod waiting.
    await pods.create("hungry", "true", container_resources={"limits": {"nvidia.com/gpu": 3}})
    waiting = await pods.until("hungry", lambda found: bool(found["status"].get("conditions")))
    assert (waiting["status"]["phase"], waiting["status"]["conditions"][0]["reason"]) == ("Pending", "Unschedulable")


async def test_a_deleted_pod_gets_its_grace_and_goes_when_its_processes_have(add_node: AddNode, team: Team) -> None:
    node = add_node("one")
    node.wait_ready()
    pods = Pods(team)
    script = "trap 'echo saved; exit 143' TERM; echo $$$$; while :; do sleep 0.05; done"
    await pods.create("kind", script)
    await pods.create("deaf", "trap '' TERM; echo $$$$; while :; do sleep 0.05; done", terminationGracePeriodSeconds=1)
    await pods.create("late", "sleep 99", activeDeadlineSeconds=1)
    await pods.phase("kind", "Running")
    await pods.phase("deaf", "Running")
    await asyncio.to_thread(
        wait_until, lambda: bool(node.log_of("kind", "main") and node.log_of("deaf", "main")), "pids"
    )
    for name in ("kind", "deaf"):
        await team.cluster.delete(POD, team.namespace, name)
    for name in ("kind", "deaf"):
        await pods.gone(name)
        pid, *rest = node.log_of(name, "main").split()
        assert not alive(int(pid))
        assert rest == (["saved"] if name == "kind" else [])
    late = await pods.phase("late", "Succeeded", "Failed")
    assert (late["status"]["reason"], terminated(late)["exitCode"]) == ("DeadlineExceeded", 143)


async def test_what_it_cannot_do_it_says(add_node: AddNode, team: Team) -> None:
    node = add_node("one")
    node.wait_ready()
    pods = Pods(team)
    mount = {"container_volumeMounts": [{"name": "disk", "mountPath": "/data"}]}
    await pods.create("disk", "true", volumes=[{"name": "disk", "downwardAPI": {}}], **mount)
    await pods.create("image", "true", container_image="registry/some:1", serviceAccountName="default")
    failed = await pods.phase("disk", "Failed")
    assert failed["status"]["reason"] == "NotSupportedLocally"
    assert "volume disk: downwardAPI is not supported" in failed["status"]["message"]
    await pods.phase("image", "Succeeded")
    told = [event for event in await team.events("WithoutEffect") if event["involvedObject"]["name"] == "image"]
    assert [re.sub(".*: ", "", event["message"]) for event in told] == ["image"]


async def test_a_gang_over_two_machines_is_told_instead_of_waiting(
    add_node: AddNode, team: Team, nodes: Callable[..., list[str]]
) -> None:
    [elsewhere] = nodes(1, {})
    here = add_node("one")
    here.wait_ready()
    pods = Pods(team)
    labels = {names.LABEL_JOB_NAME: "flowers", names.LABEL_GENERATION: "1"}
    await pods.create("flowers-master-0", "true", labels=labels, nodeName=elsewhere)
    await pods.phase("flowers-master-0", "Running")
    await pods.create("flowers-worker-0", "echo ran", labels=labels, nodeName=here.name)
    failed = await pods.phase("flowers-worker-0", "Failed", "Succeeded")
    assert failed["status"]["reason"] == "NotSupportedLocally"
    assert f"flowers-master-0 of the same job is on node {elsewhere}" in failed["status"]["message"]


async def test_a_pod_of_another_namespace_waits_and_is_told_why(add_node: AddNode, team: Team) -> None:
    add_node("one", namespace="kube-public").wait_ready()
    pods = Pods(team)
    await pods.create("stranger", "true")
    found = await pods.until("stranger", lambda found: "containerStatuses" in found["status"])
    waiting = found["status"]["containerStatuses"][0]["state"]["waiting"]
    assert (found["status"]["phase"], waiting["reason"]) == ("Pending", names.REASON_NAMESPACE)
    assert "kube-public" in waiting["message"]
    await team.cluster.delete(POD, team.namespace, "stranger")
    await pods.gone("stranger")


# What docs/how-to/run-a-node.md says that a node needs to be allowed.
OF_THE_CLUSTER = [
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "create", "patch"]},
    {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
]
OF_LEASES = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "patch"]}]
OF_PODS = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
]


@pytest.fixture
def weak_kubeconfig(kubectl: Kubectl, namespace: str, tmp_path: Path) -> Iterator[Path]:
    """Of an account that may do what the page lists, and nothing else."""
    kubectl("create", "serviceaccount", "node")
    made = []
    for kind, where, rules in (
        ("ClusterRole", None, OF_THE_CLUSTER),
        ("Role", names.NODE_LEASE_NAMESPACE, OF_LEASES),
        ("Role", namespace, OF_PODS),
    ):
        group = "rbac.authorization.k8s.io"
        metadata = {"name": f"{namespace}-node", **({"namespace": where} if where else {})}
        account = {"kind": "ServiceAccount", "name": "node", "namespace": namespace}
        reference = {"apiGroup": group, "kind": kind, "name": metadata["name"]}
        made += [
            {"apiVersion": f"{group}/v1", "kind": kind, "metadata": metadata, "rules": rules},
            {
                "apiVersion": f"{group}/v1",
                "kind": f"{kind}Binding",
                "metadata": metadata,
                "subjects": [account],
                "roleRef": reference,
            },
        ]
    everywhere = Kubectl(kubectl.kubeconfig)
    everywhere.apply(*made)
    path = tmp_path / "weak.kubeconfig"
    seen = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    seen["users"][0]["user"] = {"token": kubectl("create", "token", "node").strip()}
    path.write_text(json.dumps(seen))
    yield path
    for manifest in made:
        where = manifest["metadata"].get("namespace")
        Kubectl(kubectl.kubeconfig, where)("delete", manifest["kind"], manifest["metadata"]["name"], "--wait=false")


async def test_the_rights_that_the_page_lists_are_enough(add_node: AddNode, team: Team, weak_kubeconfig: Path) -> None:
    node = add_node("one", kubeconfig=weak_kubeconfig)
    node.wait_ready()
    pods = Pods(team)
    await pods.create("ends", "exit 7")
    await pods.create("runs", "sleep 99")
    assert terminated(await pods.phase("ends", "Failed"))["exitCode"] == 7
    await pods.phase("runs", "Running")
    await team.cluster.delete(POD, team.namespace, "runs", grace_period_s=1)
    await pods.gone("runs")
    assert {event["involvedObject"]["name"] for event in await team.events("Started")} == {"ends", "runs"}
    assert await asyncio.to_thread(node.stop) == 0
    assert node.said().count("forbidden") == 1, "only that pods of other namespaces cannot be seen is told"
    assert "wait without being told why" in node.said()


async def test_after_sigkill_no_process_is_left_and_the_next_start_tells_what_is_lost(
    add_node: AddNode, team: Team
) -> None:
    node = add_node("one")
    node.wait_ready()
    pods = Pods(team)
    await pods.create("running", "sleep 99")
    await pods.create("over", "exit 3")
    await pods.phase("running", "Running")
    await pods.phase("over", "Failed")
    node.kill()
    await asyncio.to_thread(wait_until, lambda: not marked(node.pods), "its processes are gone")
    await pods.create("new", "echo ran")
    await pods.until("new", lambda found: bool(found["spec"].get("nodeName")))
    node.start()
    lost = await pods.phase("running", "Failed")
    assert lost["status"]["reason"] == names.REASON_NODE_LOST
    assert terminated(lost)["reason"] == names.STATUS_UNKNOWN
    assert terminated(await pods.get("over"))["exitCode"] == 3
    await pods.phase("new", "Succeeded")


async def test_sigterm_stops_pods_in_order_and_tells_that_the_node_goes(
    add_node: AddNode, team: Team, kubectl: Kubectl
) -> None:
    node = add_node("one")
    node.wait_ready()
    pods = Pods(team)
    await pods.create("obedient", "trap 'echo saved; exit 143' TERM; echo ready; while :; do sleep 0.05; done")
    await pods.create("done", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    for name in ("obedient", "done"):
        await pods.phase(name, "Running")
        await asyncio.to_thread(wait_until, lambda name=name: "ready" in node.log_of(name, "main"), "trap is set")
    assert await asyncio.to_thread(node.stop) == 0
    stopped = await pods.get("obedient")
    assert (stopped["status"]["phase"], stopped["status"]["reason"]) == ("Failed", names.POD_TERMINATED)
    assert terminated(stopped)["exitCode"] == 143
    disrupted = next(c for c in stopped["status"]["conditions"] if c["type"] == names.DISRUPTION_TARGET)
    assert (disrupted["status"], disrupted["reason"]) == ("True", names.TERMINATION_BY_KUBELET)
    assert (await pods.get("done"))["status"]["phase"] == "Succeeded"
    found = kubectl.json("get", "node", node.name)
    ready = next(c for c in found["status"]["conditions"] if c["type"] == names.NODE_READY)
    assert (ready["status"], ready["reason"]) == ("False", names.NODE_STOPPED)
    assert {"key": names.TAINT_NOT_READY, "effect": "NoSchedule"}.items() <= next(
        taint.items() for taint in found["spec"]["taints"] if taint["key"] == names.TAINT_NOT_READY
    )


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_folder(tmp_path_factory.mktemp("data"))


@pytest.mark.timeout(600)
async def test_a_gang_trains_over_two_nodes_loses_a_rank_and_a_node_and_succeeds(
    add_node: AddNode, operator: Operator, team: Team, kubectl: Kubectl, digits: Path, tmp_path: Path
) -> None:
    first, second = add_node("one", "--cpu", 2), add_node("two", "--cpu", 4)
    first.wait_ready()
    second.wait_ready()
    output = tmp_path / "output"
    kubectl.apply(training(team.namespace, digits, output, nodes=3, epochs=8))
    pods = await team.until_pods(3, name="digits", timeout_s=60)
    assert {each["spec"]["nodeName"] for each in pods} == {first.name, second.name}

    # A rank is killed: the gang starts again, and that counts.
    await asyncio.to_thread(wait_until, lambda: checkpointed(output) >= 2, "a checkpoint", 120)
    [ranks] = [json.loads(path.read_text()) for path in first.pods.glob("*/ranks.json")][:1]
    os.kill(ranks[0]["pid"], signal.SIGKILL)
    job = await team.until(
        lambda job: job["status"].get("generation") == 2, "the second gang", name="digits", timeout_s=90
    )
    assert job["status"]["restarts"] == 1
    await team.until_pods(3, generation=2, name="digits", timeout_s=90)

    # A node is stopped: its pods checkpoint and go elsewhere, and that is free.
    before = checkpointed(output)
    await asyncio.to_thread(wait_until, lambda: checkpointed(output) > before, "it goes on", 120)
    assert await asyncio.to_thread(first.stop) == 0
    pods = await team.until_pods(3, generation=3, name="digits", timeout_s=120)
    assert {each["spec"]["nodeName"] for each in pods} == {second.name}

    # The controller cannot reach these pods; their node tells it how far they are.
    job = await team.until(
        lambda job: job["status"].get("progress", {}).get("epoch", 0) >= 1, "progress", name="digits", timeout_s=240
    )
    job = await team.until_state(names.SUCCEEDED, "digits", timeout_s=300)
    assert job["status"]["restarts"] == 1
    assert json.loads((output / "bundle" / "model.json").read_text())["classes"] == [str(digit) for digit in range(10)]
    master = next(each for each in await team.children(name="digits") if each["metadata"]["name"].endswith("master-0"))
    assert terminated(master)["exitCode"] == 0
    assert condition_of(job, names.SUCCEEDED)["status"] == "True"
    warned = [event for event in (await team.cluster.list(EVENT, team.namespace)).items if event["type"] == "Warning"]
    assert [event["message"] for event in warned if "ndpoint" in event["reason"]] == []
