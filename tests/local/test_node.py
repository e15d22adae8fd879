"""A node of a real cluster, part by part: what it says of itself, what its pods get, what it is told."""

from __future__ import annotations

import asyncio
import errno
import getpass
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.command import platform
from support.runs import pod, until
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import moments, names
from trainserve.kube.cluster import Conflict, Forbidden, Manifest, NotFound
from trainserve.kube.names import LEASE, NODE, Kind
from trainserve.local import nodedevices, nodeobject, nodeprocess, nodeshape, podspec
from trainserve.local.nodedevices import Devices
from trainserve.local.nodefolders import KEPT_S, Room, folder_name, outdated, tidy
from trainserve.local.nodeheart import NodeHeart
from trainserve.local.nodeobject import LEASE_S, Machine, NodeShape
from trainserve.machine import locks
from trainserve.machine.ports import answers, loopback_of

HERE = Machine("linux", "x86_64", "boot-1", "6.1", "Debian", "1.0")
ELSEWHERE = Machine("linux", "aarch64", "boot-2", "6.1", "Debian", "1.0")
SHAPE = NodeShape("n", {"cpu": "4", "memory": "8Gi", "pods": "110"})
NOW = 1_800_000_000.0


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

        third = Beating(replace(ELSEWHERE, folder="other"), first.objects)
        with pytest.raises(UserError, match="runs with another --root"):
            await third.heart.register()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("refusal", "said"), [(Forbidden("you may not"), "you may not"), (ConnectionError("no route"), "no route")]
)
def test_a_server_that_refuses_or_is_away_ends_it_in_words(refusal: Exception, said: str) -> None:
    its = Beating()
    its.objects.refuse = [refusal]
    with pytest.raises(EnvironmentProblem, match=said):
        asyncio.run(its.heart.register())


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


def test_a_full_disk_is_told_once_and_that_there_is_room_again_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    room = Room(tmp_path / "pods")
    room.look()  # it is not there: what needs it says so
    room = Room(tmp_path)
    room.look()
    assert caplog.text == ""
    free = os.statvfs(tmp_path)
    for blocks, files in ((0, 10**6), (0, 0), (10**6, 1), (10**6, 10**6), (10**6, 10**6)):
        values = {**{name: getattr(free, name) for name in ("f_frsize", "f_files")}, "f_bavail": blocks}
        found = SimpleNamespace(**values, f_favail=files)
        monkeypatch.setattr(os, "statvfs", lambda _, found=found: found)
        room.look()
    first, second = caplog.messages
    assert first.startswith(f"{tmp_path} is full: what pods write from now on is lost")
    assert second == f"{tmp_path} has room again"


# Which GPUs they get.


def test_logs_that_cannot_be_looked_at_or_removed_are_told_and_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = tmp_path / "ns_a_u1"
    old.mkdir()
    tidy(tmp_path, (), time.time() + 2 * KEPT_S)
    assert not old.exists()
    old.mkdir()

    def vanished(folder: Path) -> Iterator[Path]:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(folder))

    monkeypatch.setattr(Path, "iterdir", vanished)
    tidy(tmp_path, (), time.time() + 2 * KEPT_S)
    assert "old logs of pods cannot be removed" in caplog.text


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
    found = nodeshape.shape("n", cpu=None, memory=None, resources={"nvidia.com/gpu": "2"}, labels={})
    assert int(found.resources["cpu"]) >= 1
    assert int(found.resources["memory"].removesuffix("Ki")) > 1 << 20
    assert found.resources["nvidia.com/gpu"] == "2"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "A_b"}, "--name 'A_b'"),
        ({"name": ""}, "--name ''"),
        ({"name": "a..b"}, r"--name 'a\.\.b'"),
        ({"name": "a" * 254}, "no more than 253"),
        ({"cpu": ""}, "--cpu: ''"),
        ({"memory": ""}, "--memory: ''"),
        ({"cpu": "1e400"}, "--cpu: '1e400'"),
        ({"resources": {"cpu": "4"}}, "--resource cpu=4: has a flag of its own"),
        ({"resources": {"example.com/x": "0.5"}}, "--resource example.com/x: '0.5' is not a whole number"),
        ({"resources": {"pods": "0.5"}}, "--resource pods: '0.5' is not a whole number"),
        ({"resources": {"nvidia.com/gpu": "1G"}}, "--resource nvidia.com/gpu: '1G' is more than the 1024"),
        ({"labels": {"a b": "c"}}, "--label a b=c: name part must be"),
        ({"labels": {"a": "b c"}}, "--label a=b c: must be empty or"),
        ({"labels": {"A_/a": "b"}}, "--label A_/a=b: prefix must be"),
        ({"cpu": "many"}, "--cpu: 'many'"),
        ({"memory": "-1Gi"}, "--memory: '-1Gi' is less than nothing"),
        ({"resources": {"nvidia.com/gpu": "x"}}, "--resource nvidia.com/gpu: 'x'"),
        ({"resources": {"a b": "1"}}, "--resource: 'a b'"),
    ],
)
def test_wrong_values_are_told_with_their_flag(given: dict[str, Any], said: str) -> None:
    values: dict[str, Any] = {"name": "n", "cpu": None, "memory": None, "resources": {}, "labels": {}, **given}
    with pytest.raises(UserError, match=said):
        nodeshape.shape(values.pop("name"), **values)


def test_taints_as_kubectl_takes_them() -> None:
    assert nodeshape.taint("a/b=c:NoSchedule") == {"key": "a/b", "value": "c", "effect": "NoSchedule"}
    assert nodeshape.taint("a:NoExecute") == {"key": "a", "effect": "NoExecute"}
    with pytest.raises(UserError, match="'a=b' is not"):
        nodeshape.taint("a=b")
    with pytest.raises(UserError, match=r"--taint a=b{70}:NoExecute: must be no more than 63"):
        nodeshape.taint(f"a={'b' * 70}:NoExecute")
    with pytest.raises(UserError, match="--taint a/b/c:NoExecute: "):
        nodeshape.taint("a/b/c:NoExecute")


def test_a_name_that_is_given_two_values_is_not_chosen_from() -> None:
    assert nodeshape.pairs("--label", ["a=1", "b=", "a=1"]) == {"a": "1", "b": ""}
    with pytest.raises(UserError, match="--label: a is given as '1' and as '2'"):
        nodeshape.pairs("--label", ["a=1", "a=2"])


def test_a_node_that_comes_back_has_the_taints_it_is_told_to_have() -> None:
    async def main() -> None:
        its = Beating()
        await its.heart.register()
        its.objects.node["spec"] = {"taints": [{"key": "of", "value": "others", "effect": "NoSchedule"}]}
        for value in ("1", "2", "2"):
            taint = {"key": "mine", "value": value, "effect": "NoSchedule"}
            heart = NodeHeart(its.objects, replace(SHAPE, taints=(taint,)), HERE, lambda: NOW)
            await heart.register()
            assert its.objects.node["spec"]["taints"] == [
                {"key": "of", "value": "others", "effect": "NoSchedule"},
                taint,
            ]

    asyncio.run(main())


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


def test_a_user_without_a_name_is_told_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", unknown)
    with pytest.raises(EnvironmentProblem, match="no Kubernetes cluster"):
        run(tmp_path, allow_root=True)
    assert f"can run any command as uid {os.geteuid()} on this machine" in caplog.text


def test_pods_inherit_no_kubeconfig_also_where_the_node_was_given_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/home/admin/kubeconfig")
    with pytest.raises(EnvironmentProblem, match=str(tmp_path / "none")):
        run(tmp_path, allow_root=True)
    assert "KUBECONFIG" not in os.environ


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "whose pods are to run here?"),
        (["--namespace", "a", "--all-namespaces"], "exclude each other"),
        (["--namespace", "a", "--label", "x"], "--label: 'x' is not NAME=VALUE"),
        (["--namespace", ""], "--namespace '': a name is empty; is a variable of the shell not set?"),
        (["--namespace", "a,B"], "--namespace 'B': a namespace's name has lower-case letters"),
    ],
)
def test_the_command_asks_whose_pods(words: list[str], said: str) -> None:
    done = platform("node", "run", *words)
    assert (done.returncode, said in done.stderr, "hint:" in done.stderr) == (2, True, True)
