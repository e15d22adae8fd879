"""What a job looks at in its first minute: each thing wrong, and the line that says so."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from support.ranks import classifier, free_port
from trainserve.errors import EnvironmentProblem, PeerLost
from trainserve.launch.preflight import before, network, node, report
from trainserve.train.distributed import Group
from trainserve.train.imagefolder import Listing, Sample
from trainserve.train.recipe import resolve


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (None, None),
        ("1.4.2", None),
        ("1.4", None),
        ("1.5.0", "trainserve 1.5.0 made the job, and this image has 1.4.0: another minor version"),
        ("newest", "trainserve 'newest' made the job, and this image has 1.4.0: TRAINSERVE_VERSION is no version"),
    ],
)
def test_an_image_of_another_minor_version_is_told(asked: str | None, said: str | None) -> None:
    assert before.image({} if asked is None else {"TRAINSERVE_VERSION": asked}, "1.4.0") == said


def test_an_image_of_another_major_version_is_refused() -> None:
    with pytest.raises(
        EnvironmentProblem, match=r"trainserve 2\.0\.1 made the job, and this image has 1\.4\.0"
    ) as error:
        before.image({"TRAINSERVE_VERSION": "2.0.1"}, "1.4.0")
    assert "--image" in (error.value.hint or "")


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def reach(host: str, port: int, limit_s: float = 3.0) -> None:
    time = Time()
    env = {"RANK": "2", "MASTER_ADDR": host, "MASTER_PORT": str(port)}
    before.master(env, limit_s=limit_s, clock=time.clock, sleep=time.sleep)


def own_address() -> str:
    """An address of this machine that is not loopback; on a machine without any network there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # TEST-NET-1: nothing is sent
        return str(probe.getsockname()[0])


@pytest.fixture
def beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a pod, though the servers of these tests stay on loopback."""
    monkeypatch.setattr(before, "is_loopback", lambda _: False)


def test_a_master_without_an_address_is_told_apart(beyond_loopback: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(before.socket, "getaddrinfo", unknown)
    with pytest.raises(
        PeerLost, match=r"the master a-master-0:23456 has no address: Name or service .*4 tries"
    ) as found:
        reach("a-master-0", 23456)
    assert "kubectl get service" in (found.value.hint or "")


def test_a_master_that_refuses_is_told_apart(beyond_loopback: None) -> None:
    port = free_port()
    with pytest.raises(PeerLost, match=rf"rank 2: the master 127.0.0.1:{port} .*refuses the connection") as found:
        reach("127.0.0.1", port)
    assert "Master's log" in (found.value.hint or "")


def test_a_master_that_is_silent_is_told_apart(beyond_loopback: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before, "CONNECT_S", 0.05)
    # The queue of a server that takes no connection is full after the second one; then packets are dropped.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(server.getsockname())
        with pytest.raises(PeerLost, match="does not answer") as found:
            reach(*server.getsockname())
        for each in waiting:
            each.close()
    assert "NetworkPolicy" in (found.value.hint or "")


def test_a_master_that_comes_late_is_met(beyond_loopback: None) -> None:
    port, time = free_port(), Time()
    servers: list[socket.socket] = []

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if time.now == 2:
            servers.append(socket.create_server(("127.0.0.1", port)))

    env = {"RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    before.master(env, clock=time.clock, sleep=sleep)
    servers.pop().close()


def test_on_a_laptop_and_on_rank_0_there_is_nothing_to_wait_for() -> None:
    for env in ({}, {"RANK": "0", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "1"}):
        before.master(env, limit_s=0)
    before.master({"RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}, limit_s=0)


class Ring:
    """Two ranks in two threads whose exchange is a barrier: what a store does, without torch."""

    def __init__(self) -> None:
        self.values: dict[str, dict[int, object]] = {}
        self.barrier = threading.Barrier(2)

    def group(self, rank: int) -> Group:
        ring = self

        class Played(Group):
            def exchange(self, name: str, value: object) -> list[object]:
                ring.values.setdefault(name, {})[rank] = value
                ring.barrier.wait(20)
                return [ring.values[name][each] for each in range(2)]

        return Played(rank, 2)

    def found(self) -> list[str | None]:
        results: dict[int, str | None] = {}
        threads = [
            threading.Thread(target=lambda r=rank: results.update({r: network.neighbours(self.group(r))}))
            for rank in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [results[rank] for rank in range(2)]


def test_neighbours_that_connect_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_own_address", lambda: "127.0.0.1")
    assert Ring().found() == [None, None]


def test_a_neighbour_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def dropped(address: tuple[str, int], timeout: float) -> socket.socket:
        raise TimeoutError(f"{address} within {timeout}")

    monkeypatch.setattr(network.socket, "create_connection", dropped)
    first, second = Ring().found()
    assert first is not None
    assert first.startswith("cannot connect to rank 1 (")
    assert first.endswith("no answer")
    assert second is not None
    assert "rank 0" in second


def test_what_ranks_find_is_one_line_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTNAME", "a-worker-0")
    assert report.together(Group(), "a", [None, None]) is None
    found = report.together(Group(), "b", ["no GPU", None, "no room"])
    assert found == "preflight: rank 0 (a-worker-0): no GPU; rank 0 (a-worker-0): no room"


def test_gpus_that_are_missing_are_told() -> None:
    assert node.gpus(2, 2) is None
    said = node.gpus(8, 0) or ""
    assert said.startswith("asked for 8 GPUs (spec.pod.gpus)")
    assert "built for the CPU" in said or "device plugin" in said


def test_gpus_are_only_asked_for_where_somebody_gives_them(tmp_path: Path) -> None:
    in_a_pod = {"TRAINSERVE_VERSION": "0.1.0"}
    eight = classifier(tmp_path, pod={"gpus": 8})
    assert report.asked_gpus(eight, in_a_pod) == 8
    assert report.asked_gpus(eight, {}) == 0, "a laptop"
    assert report.asked_gpus(classifier(tmp_path), in_a_pod) == 0
    slices = classifier(tmp_path, pod={"gpus": 2, "gpuResource": "nvidia.com/mig-1g.5gb"})
    assert report.asked_gpus(slices, in_a_pod) == 1


def recipe_of(path: Path, **train: object):
    spec = classifier(path, train={"batchSize": 128, **train}, model={"imageSize": 224})
    samples = [Sample(f"a/{index}.jpg", index % 2, 1, 1) for index in range(400)]
    return spec, resolve(spec, Listing(path, ("a", "b"), samples, samples[:4], []), 300, 1)


def test_shared_memory_is_measured_against_the_batches(tmp_path: Path) -> None:
    _, recipe = recipe_of(tmp_path, workers=4)
    needed = node.shared_memory_needed(recipe, recipe.loader_processes(8, 1), 1)
    assert needed == 4 * 3 * 128 * 3 * 224 * 224 * 4  # 880 MiB: a pod's default of 64 MiB is a bus error
    said = node.shared_memory(1 << 60, tmp_path) or ""
    assert said.startswith(f"shared memory too small: {tmp_path} has ")
    assert "spec.pod.sharedMemory" in said
    assert node.shared_memory(1, tmp_path) is None
    assert node.shared_memory(0, tmp_path / "none") is None


def test_an_output_that_cannot_be_written_names_who_and_whose(tmp_path: Path) -> None:
    assert node.writable(tmp_path / "new" / "folder") is None
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    assert "cannot be written" in (node.writable(tmp_path / "file") or "")
    said = node.permissions(tmp_path / "not" / "there")
    owner = tmp_path.stat()
    assert f"{tmp_path} belongs to {owner.st_uid}:{owner.st_gid} with mode 0700" in said
    assert f"this process is {os.geteuid()}:{os.getegid()}" in said


def test_no_permission_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refused)
    assert (node.writable(tmp_path) or "").startswith(
        f"no permission to write to the output {tmp_path}: {tmp_path} bel"
    )


def test_a_new_job_does_not_go_on_with_a_finished_one_of_its_name(tmp_path: Path) -> None:
    new = {"TRAINSERVE_VERSION": "0.1.0", "TRAINSERVE_GENERATION": "1", "TRAINSERVE_JOB_UID": "new"}
    assert node.finished_by_another(tmp_path, new) is None
    (tmp_path / "bundle").mkdir()
    model = tmp_path / "bundle" / "model.json"
    model.write_text(json.dumps({"lineage": {"job": "team/flowers", "jobUid": "old"}}))
    assert node.finished_by_another(tmp_path, new) == (
        f"the output {tmp_path} holds the finished run of an earlier job team/flowers (uid old); train under another "
        "--name, or remove what is there"
    )
    assert node.finished_by_another(tmp_path, {**new, "TRAINSERVE_JOB_UID": "old"}) is None, "its own"
    assert node.finished_by_another(tmp_path, {**new, "TRAINSERVE_GENERATION": "2"}) is None, "resumed"
    assert node.finished_by_another(tmp_path, {"TRAINSERVE_GENERATION": "1"}) is None, "a laptop"
    for damaged in ("", "[]", '{"lineage": 3}'):
        model.write_text(damaged)
        assert node.finished_by_another(tmp_path, new) is None


def test_room_counts_what_the_run_has_left_there(tmp_path: Path) -> None:
    spec, recipe = recipe_of(tmp_path, keepLast=3)
    needed = node.output_needed(spec, recipe)
    assert 5 * 85e6 < needed < 6 * 95e6  # five checkpoints of ResNet-18 with momentum, and its weights twice
    assert node.room(tmp_path, needed) is None
    said = node.room(tmp_path, 1 << 60) or ""
    assert said.startswith(f"too little room in the output {tmp_path}: ")
    assert "spec.train.keepLast" in said
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    kept = tmp_path / "checkpoints" / "step-00000001"
    kept.mkdir(parents=True)
    with (kept / "state.pt").open("wb") as file:
        file.truncate(1 << 40)  # sparse: takes no room
    assert node.room(tmp_path, free + (1 << 39)) is None
