"""A node of a real cluster, part by part: what it says of itself and of its pods, on which server answers it bears."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from support.command import platform
from support.runs import pod
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import moments, names
from trainserve.kube.cluster import Conflict, Forbidden, Invalid, Manifest, NotFound
from trainserve.kube.informer import Backoff
from trainserve.kube.names import LEASE, NODE, POD, Kind
from trainserve.local import nodedevices, nodeobject, nodeprocess, nodestatus, podspec
from trainserve.local.nodedevices import Devices
from trainserve.local.nodefolders import KEPT_S, folder_name, outdated
from trainserve.local.nodeheart import NodeHeart
from trainserve.local.nodeobject import LEASE_S, Machine, NodeShape
from trainserve.local.nodeprogress import ProgressWriter
from trainserve.local.nodestatus import StatusWriter
from trainserve.local.server import MemoryCluster
from trainserve.machine import locks
from trainserve.machine.ports import answers, loopback_of

HERE = Machine("linux", "x86_64", "boot-1", "6.1", "Debian", "1.0")
ELSEWHERE = Machine("linux", "aarch64", "boot-2", "6.1", "Debian", "1.0")
SHAPE = NodeShape("n", {"cpu": "4", "memory": "8Gi", "pods": "110"})
NOW = 1_800_000_000.0
AT_ONCE = Backoff(first_s=0.0, limit_s=0.0)


# What it says of itself.


def test_labels_are_those_that_pods_choose_nodes_by_and_the_users_own_win() -> None:
    shape = NodeShape("n", SHAPE.resources, {"zone": "a", names.LABEL_HOSTNAME: "mine"})
    assert nodeobject.labels(shape, ELSEWHERE) == {
        "kubernetes.io/hostname": "mine",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "arm64",
        "trainserve.dev/node": "processes",
        "zone": "a",
    }


def test_ready_keeps_its_time_while_it_stays_and_conditions_of_others_stay() -> None:
    other = {"type": "NetworkUnavailable", "status": "False"}
    first = nodeobject.status(SHAPE, HERE, {"conditions": [other]}, NOW, ready=True)
    later = nodeobject.status(SHAPE, HERE, first, NOW + 60, ready=True)
    stopped = nodeobject.status(SHAPE, HERE, later, NOW + 90, ready=False)
    assert [c["type"] for c in stopped["conditions"]] == ["NetworkUnavailable", "Ready"]
    ready = [status["conditions"][-1] for status in (first, later, stopped)]
    assert [c["status"] for c in ready] == ["True", "True", "False"]
    assert [c["lastTransitionTime"] for c in ready] == [moments.rfc3339(t) for t in (NOW, NOW, NOW + 90)]
    assert [c["lastHeartbeatTime"] for c in ready] == [moments.rfc3339(t) for t in (NOW, NOW + 60, NOW + 90)]


def test_the_taint_that_keeps_pods_away_is_put_on_once() -> None:
    mine = {"key": "a", "effect": "NoExecute"}
    once = nodeobject.not_ready_taints({"spec": {"taints": [mine]}})
    assert once == [mine, {"key": names.TAINT_NOT_READY, "effect": "NoSchedule"}]
    assert nodeobject.not_ready_taints({"spec": {"taints": once}}) == once


class Objects:
    """Nodes and Leases of a server, as far as a heart needs them; `refuse` raises what is next in it first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.kept: dict[tuple[Kind, str], Manifest] = {}
        self.refuse: list[Exception] = []
        self.version = 0
        self.asked = 0
        self.clock = clock

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest:
        self._answer(kind, namespace)
        if (kind, name) not in self.kept:
            raise NotFound(name)
        return {**self.kept[kind, name]}

    async def create(self, kind: Kind, namespace: str | None, manifest: Manifest) -> Manifest:
        self._answer(kind, namespace)
        self.version += 1
        meta = {**manifest["metadata"], "uid": f"u{self.version}", "resourceVersion": str(self.version)}
        self.kept[kind, meta["name"]] = {**manifest, "metadata": meta}
        return self.kept[kind, meta["name"]]

    async def patch(
        self, kind: Kind, namespace: str | None, name: str, patch: Manifest, *, subresource: str = ""
    ) -> Manifest:
        self._answer(kind, namespace)
        if (kind, name) not in self.kept:
            raise NotFound(name)
        found = self.kept[kind, name]
        wanted = patch.get("metadata", {}).get("resourceVersion")
        if wanted not in (None, found["metadata"]["resourceVersion"]):
            raise Conflict("stale")
        assert set(patch) - {"metadata"} <= ({"status"} if subresource else {"spec"})
        self.version += 1
        labels = {**found["metadata"].get("labels", {}), **patch.get("metadata", {}).get("labels", {})}
        meta = {**found["metadata"], "labels": labels, "resourceVersion": str(self.version)}
        parts = {part: {**found.get(part, {}), **patch[part]} for part in ("spec", "status") if part in patch}
        self.kept[kind, name] = {**found, "metadata": meta, **parts}
        return self.kept[kind, name]

    def _answer(self, kind: Kind, namespace: str | None) -> None:
        assert namespace == {NODE: None, LEASE: names.NODE_LEASE_NAMESPACE}[kind]
        self.asked += 1
        if self.refuse:
            raise self.refuse.pop(0)

    @property
    def node(self) -> Manifest:
        return self.kept[NODE, "n"]

    def ready(self) -> str:
        return next(str(c["status"]) for c in self.node["status"]["conditions"] if c["type"] == "Ready")

    def renewed(self) -> float | None:
        return moments.unix(self.kept[LEASE, "n"]["spec"]["renewTime"])


class Beating:
    """A heart on `Objects`, with a clock that the test sets."""

    def __init__(self, machine: Machine = HERE, objects: Objects | None = None) -> None:
        self.now = NOW
        self.objects = objects or Objects(lambda: self.now)
        self.heart = NodeHeart(self.objects, SHAPE, machine, lambda: self.now, beat_s=0.01)  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def test_it_registers_renews_its_lease_and_comes_back_when_its_object_is_deleted() -> None:
    async def main() -> None:
        its = Beating()
        await its.heart.register()
        assert (its.objects.ready(), its.objects.renewed()) == ("True", NOW)
        assert its.objects.node["status"]["allocatable"] == dict(SHAPE.resources)
        beating = asyncio.create_task(its.heart.beat())
        its.now += 10
        await until(lambda: its.objects.renewed() == its.now)
        its.objects.node["status"]["conditions"][-1]["status"] = "Unknown"  # the node controller missed us for a while
        await until(lambda: its.objects.ready() == "True")
        its.objects.refuse = [ConnectionError("away"), Forbidden("no"), Conflict("changed")]
        its.now += 10
        await until(lambda: its.objects.renewed() == its.now)
        del its.objects.kept[NODE, "n"]
        await until(lambda: (NODE, "n") in its.objects.kept and "status" in its.objects.node)
        await its.heart.stopped()
        its.now += 10
        await until(lambda: its.objects.renewed() == its.now)
        assert its.objects.ready() == "False"
        assert its.objects.node["spec"]["taints"] == [{"key": names.TAINT_NOT_READY, "effect": "NoSchedule"}]
        del its.objects.kept[NODE, "n"]
        asked = its.objects.asked
        await until(lambda: its.objects.asked > asked + 3)
        assert (NODE, "n") not in its.objects.kept
        beating.cancel()

    asyncio.run(main())


def test_the_name_of_another_node_is_refused() -> None:
    async def main() -> None:
        its = Beating()
        await its.objects.create(NODE, None, {"metadata": {"name": "n", "labels": {}}})
        with pytest.raises(UserError, match="not one of `platform node run`"):
            await its.heart.register()

        first = Beating()
        await first.heart.register()
        second = Beating(ELSEWHERE, first.objects)
        second.now += LEASE_S - 1
        with pytest.raises(UserError, match="runs on another machine"):
            await second.heart.register()
        second.now += 1  # it has been silent for too long: it is gone
        await second.heart.register()
        assert first.objects.node["status"]["nodeInfo"]["bootID"] == ELSEWHERE.boot
        await Beating(ELSEWHERE, first.objects).heart.register()  # again on the same machine

    asyncio.run(main())


@pytest.mark.parametrize(
    ("refusal", "said"), [(Forbidden("you may not"), "you may not"), (ConnectionError("no route"), "no route")]
)
def test_a_server_that_refuses_or_is_away_ends_it_in_words(refusal: Exception, said: str) -> None:
    its = Beating()
    its.objects.refuse = [refusal]
    with pytest.raises(EnvironmentProblem, match=said):
        asyncio.run(its.heart.register())


# What it says of its pods.

READY = {"type": "Ready", "status": "True", "lastTransitionTime": moments.rfc3339(NOW)}


def test_a_status_leaves_what_is_others_and_has_no_address() -> None:
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "then"}
    gate = {"type": "example/gate", "status": "False"}
    laptop = {**scheduled, "lastTransitionTime": "now"}
    status = {"phase": "Running", "podIP": "x", "podIPs": [], "qosClass": "BestEffort", "conditions": [laptop, READY]}
    found = nodestatus.on_node(status, {"conditions": [scheduled, gate, {**READY, "status": "False"}]})
    assert found == {"phase": "Running", "hostIP": "127.0.0.1", "conditions": [scheduled, gate, READY]}


def test_a_pod_that_the_node_ended_says_so_as_a_kubelet_does() -> None:
    status = {"phase": "Failed", "reason": names.POD_TERMINATED, "message": "going", "conditions": [READY]}
    [_, disrupted] = nodestatus.on_node(status, {})["conditions"]
    assert (disrupted["type"], disrupted["status"], disrupted["message"]) == ("DisruptionTarget", "True", "going")


def test_of_a_lost_pod_nothing_runs_and_what_had_ended_keeps_its_code() -> None:
    ended = {"name": "a", "state": {"terminated": {"exitCode": 3}}}
    running = {"name": "b", "ready": True, "state": {"running": {"startedAt": "then"}}}
    status = {"phase": "Running", "conditions": [READY], "containerStatuses": [ended, running]}
    found = nodestatus.lost({"status": status}, "NodeLost", "gone", NOW)
    assert (found["phase"], found["reason"], found["conditions"][0]["status"]) == ("Failed", "NodeLost", "False")
    assert found["containerStatuses"][0] == ended
    state = found["containerStatuses"][1]["state"]["terminated"]
    assert (state["exitCode"], state["reason"], state["startedAt"]) == (137, "ContainerStatusUnknown", "then")


def test_an_end_in_one_line() -> None:
    def ended(code: int) -> Manifest:
        return {"name": f"c{code}", "state": {"terminated": {"exitCode": code}}}

    status = {"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": [ended(0), ended(143)]}
    assert nodestatus.end({"status": status}) == "Failed (DeadlineExceeded): c0 0, c143 143"
    waiting = {"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"waiting": {}}}]}
    assert nodestatus.end({"status": waiting}) == "Failed: no container has run"


class Away(MemoryCluster):
    """A server that answers a patch with the next of `refuse`, if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse: list[Exception] = []
        self.patches: list[Manifest] = []

    async def patch(self, *words: Any, **options: Any) -> Manifest:
        self.patches.append(words[-1])
        if self.refuse:
            raise self.refuse.pop(0)
        return await super().patch(*words, **options)


def with_writer(scenario: Callable[[Away, StatusWriter, list[str]], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster, gone = Away(), list[str]()
        created = await cluster.create(POD, "ns", pod("p", "true"))
        bound = await cluster.bind("ns", created["metadata"]["name"], "n")
        writer = StatusWriter(cluster, bound, lambda: gone.append("gone"), AT_ONCE)
        writing = asyncio.create_task(writer.run())
        await asyncio.wait_for(scenario(cluster, writer, gone), 10)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    asyncio.run(main())


def test_the_newest_status_is_written_once_the_server_is_back() -> None:
    async def scenario(cluster: Away, writer: StatusWriter, gone: list[str]) -> None:
        cluster.refuse = [ConnectionError("away")] * 3
        assert await writer({"phase": "Running"})
        await until(lambda: len(cluster.patches) >= 2)
        assert await writer({"phase": "Succeeded"})
        await writer.written()
        assert (await cluster.get(POD, "ns", "p"))["status"]["phase"] == "Succeeded"
        assert not gone

    with_writer(scenario)


def test_a_condition_that_somebody_set_meanwhile_is_kept() -> None:
    async def scenario(cluster: Away, writer: StatusWriter, _: list[str]) -> None:
        gate = {"type": "example/gate", "status": "True"}
        await cluster.patch(POD, "ns", "p", {"status": {"conditions": [gate]}}, subresource="status")
        await writer({"phase": "Running", "conditions": [READY]})
        await writer.written()
        assert (await cluster.get(POD, "ns", "p"))["status"]["conditions"] == [gate, READY]

    with_writer(scenario)


@pytest.mark.parametrize("again", [False, True])
def test_a_pod_that_is_gone_or_another_by_now_is_told(again: bool) -> None:
    async def scenario(cluster: Away, writer: StatusWriter, gone: list[str]) -> None:
        await cluster.delete(POD, "ns", "p", grace_period_s=0)
        if again:
            await cluster.create(POD, "ns", pod("p", "true"))
        await writer({"phase": "Running"})
        await writer.written()
        assert gone == ["gone"]
        assert not await writer({"phase": "Failed"})
        if again:
            assert (await cluster.get(POD, "ns", "p"))["status"]["phase"] == "Pending"

    with_writer(scenario)


def test_a_status_that_the_server_will_never_take_is_told_and_the_next_one_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(cluster: Away, writer: StatusWriter, _: list[str]) -> None:
        cluster.refuse = [Invalid("status.phase: not that")]
        await writer({"phase": "Odd"})
        await writer.written()
        await writer({"phase": "Running"})
        await writer.written()
        assert (await cluster.get(POD, "ns", "p"))["status"]["phase"] == "Running"

    with_writer(scenario)
    assert "status.phase: not that" in caplog.text


# Where its pods meet.


def test_a_gang_has_a_loopback_address_of_its_own() -> None:
    found = {loopback_of(f"job {generation}") for generation in range(500)}
    assert len(found) == 500
    assert all(address.startswith("127.") and not address.startswith("127.0.") for address in found)
    assert loopback_of("job 1") == loopback_of("job 1")
    assert answers(loopback_of("job 1"))
    assert not answers("192.0.2.1")


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        ("MASTER_ADDR", "j-master-0", "127.9.8.7"),
        ("MASTER_PORT", "29500", "29500"),
        ("PET_RDZV_ENDPOINT", "j-worker-0:23456", "127.9.8.7:23456"),
        ("TRAINSERVE_WAIT_FOR", "j-master-0.ns.svc:29500", "127.9.8.7:29500"),
        ("TRAINSERVE_PROGRESS_ADDRESS", ":9464", "127.9.8.7:9464"),
        ("TRAINSERVE_PROGRESS_ADDRESS", "127.0.0.1:9464", "127.0.0.1:9464"),
    ],
)
def test_addresses_of_a_gang_keep_their_ports(name: str, value: str, becomes: str) -> None:
    assert podspec.substitute(name, value, podspec.address("j", "ns", None, "127.9.8.7")) == becomes


def test_what_a_scheduler_saw_to_has_had_its_effect() -> None:
    token: Manifest = {"name": "kube-api-access-x1", "projected": {}}
    spec = pod("p", "true", nodeSelector={"a": "b"}, affinity={"x": {}}, hostUsers=False, volumes=[token])
    assert podspec.without_effect(spec, scheduled=True) == {"image"}
    assert podspec.without_effect(spec) == {"affinity", "image", "nodeSelector"}
    spec["spec"]["serviceAccountName"] = "trainer"
    assert podspec.without_effect(spec, scheduled=True) == {"image", "serviceAccountName (no token)"}
    podspec.check(spec)


# How far they are.


async def answering(host: str, bodies: list[bytes]) -> asyncio.Server:
    """Answers each request with the next of `bodies`, the last one for ever."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + (bodies.pop(0) if len(bodies) > 1 else bodies[0]))
        writer.close()

    return await asyncio.start_server(answer, host, names.PROGRESS_PORT)


def test_progress_is_written_at_the_pod_when_there_is_something_new() -> None:
    host = loopback_of("test of progress")

    async def main() -> None:
        cluster = Away()
        env = [{"name": names.ENV_OUTPUT, "value": "/out"}]
        told = await cluster.create(POD, "ns", pod("master", "true", container_env=env))
        silent = await cluster.create(POD, "ns", pod("worker", "true"))
        found = [told, silent]
        writing = asyncio.create_task(ProgressWriter(cluster, lambda: found, lambda _: host, every_s=0.01).run())
        await asyncio.sleep(0.05)  # nobody answers yet
        bodies = [b"{}", b"no JSON", b'{"epoch": 1, "mine": 2}', b'{"epoch": 1}', b'{"epoch": 2}']
        async with await answering(host, bodies):
            async with asyncio.timeout(10):
                while (await cluster.get(POD, "ns", "master"))["metadata"].get("annotations") != {
                    names.ANNOTATION_PROGRESS: '{"epoch": 2}'
                }:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
        writing.cancel()
        assert [patch["metadata"]["annotations"][names.ANNOTATION_PROGRESS] for patch in cluster.patches] == [
            '{"epoch": 1}',
            '{"epoch": 2}',
        ]
        assert "annotations" not in (await cluster.get(POD, "ns", "worker"))["metadata"]

    asyncio.run(main())


# What is left of them.


def test_folders_of_pods_that_are_gone_for_a_week_go(tmp_path: Path) -> None:
    def folder(uid: str, age_s: float) -> Path:
        path = tmp_path / folder_name({"metadata": {"namespace": "ns", "name": "p", "uid": uid}})
        path.mkdir()
        (path / "main.log").touch()
        os.utime(path / "main.log", (NOW - age_s, NOW - age_s))
        os.utime(path, (NOW - KEPT_S - 2, NOW - KEPT_S - 2))
        return path

    old = folder("old", KEPT_S + 1)
    folder("there", KEPT_S + 1)
    folder("written-to", KEPT_S - 1)
    (tmp_path / "file").touch()
    assert outdated(tmp_path, {"there"}, NOW) == [old]


# Which GPUs they get.


def asking(name: str, *containers: int) -> Manifest:
    limits = [{"limits": {"nvidia.com/gpu": count, "cpu": "1"}} if count else {} for count in containers]
    made = [{"name": f"c{index}", "resources": found} for index, found in enumerate(limits)]
    return {"metadata": {"uid": name}, "spec": {"containers": made}}


def devices_of(devices: Devices, asked: Manifest) -> list[str | None]:
    return [devices.environment(asked, each).get("CUDA_VISIBLE_DEVICES") for each in asked["spec"]["containers"]]


def test_each_container_gets_gpus_of_its_own_and_one_that_asks_for_none_gets_none() -> None:
    devices = Devices(["0", "1", "2", "3"])
    first, second = asking("a", 2, 0), asking("b", 1)
    assert devices_of(devices, first) == ["0,1", ""]
    assert devices_of(devices, second) == ["2"]
    assert devices_of(devices, first) == ["0,1", ""], "a restart keeps them"
    devices.release("a")
    assert devices_of(devices, asking("c", 3)) == ["0,1,3"]


def test_a_node_without_gpus_leaves_the_variable_alone() -> None:
    assert devices_of(Devices([]), asking("a", 0)) == [None]


def test_gpus_are_those_that_the_node_itself_may_use() -> None:
    assert nodedevices.visible(2, None) == ["0", "1"]
    assert nodedevices.visible(2, "3, GPU-7,5") == ["3", "GPU-7"]


# What it is told.


def test_a_node_offers_this_machine_unless_told_otherwise() -> None:
    found = nodeprocess.shape("n", cpu=None, memory=None, resources={"nvidia.com/gpu": "2"}, labels={})
    assert int(found.resources["cpu"]) >= 1
    assert int(found.resources["memory"].removesuffix("Ki")) > 1 << 20
    assert found.resources["nvidia.com/gpu"] == "2"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "A_b"}, "--name: 'A_b'"),
        ({"cpu": "many"}, "--cpu: 'many'"),
        ({"memory": "-1Gi"}, "--memory: '-1Gi'"),
        ({"resources": {"nvidia.com/gpu": "x"}}, "--resource nvidia.com/gpu: 'x'"),
        ({"resources": {"a b": "1"}}, "--resource: 'a b'"),
    ],
)
def test_wrong_values_are_told_with_their_flag(given: dict[str, Any], said: str) -> None:
    values: dict[str, Any] = {"name": "n", "cpu": None, "memory": None, "resources": {}, "labels": {}, **given}
    with pytest.raises(UserError, match=said):
        nodeprocess.shape(values.pop("name"), **values)


def test_taints_as_kubectl_takes_them() -> None:
    assert nodeprocess.taint("a/b=c:NoSchedule") == {"key": "a/b", "value": "c", "effect": "NoSchedule"}
    assert nodeprocess.taint("a:NoExecute") == {"key": "a", "effect": "NoExecute"}
    with pytest.raises(UserError, match="'a=b' is not"):
        nodeprocess.taint("a=b")


def run(root: Path, *, allow_root: bool) -> int:
    return nodeprocess.run(
        SHAPE,
        kubeconfig=str(root / "none"),
        context=None,
        root=root,
        namespaces=("ns",),
        allow_root=allow_root,
        stop_grace_s=1.0,
    )


def test_root_has_to_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UserError, match="would run as root"):
        run(tmp_path, allow_root=False)


def test_two_processes_of_one_folder_are_refused_and_no_cluster_is_told(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="no Kubernetes cluster"):
        run(tmp_path, allow_root=True)
    lock = locks.take(tmp_path / "lock")
    assert lock is not None, "the folder is free again"
    with pytest.raises(UserError, match=r"runs in .* already"):
        run(tmp_path, allow_root=True)
    os.close(lock)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "whose pods are to run here?"),
        (["--namespace", "a", "--all-namespaces"], "exclude each other"),
        (["--namespace", "a", "--label", "x"], "--label: 'x' is not NAME=VALUE"),
    ],
)
def test_the_command_asks_whose_pods(words: list[str], said: str) -> None:
    done = platform("node", "run", *words)
    assert (done.returncode, said in done.stderr, "hint:" in done.stderr) == (2, True, True)
