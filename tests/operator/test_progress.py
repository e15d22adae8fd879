"""The controller asks pods how far they are: kind ones, slow ones, hostile ones."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.kubelet import Kubelet
from support.scenario import NAMESPACE, Scenario, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.local.server import MemoryCluster
from trainserve.machine.ports import LOOPBACK
from trainserve.operator import progress as asking
from trainserve.operator.main import Controller
from trainserve.operator.progress import (
    ANSWER_BYTES,
    ProgressPoller,
    ask_at_address,
    is_pod_address,
    read_progress,
    speaker,
)
from trainserve.operator.sync import Caches, Syncer
from trainserve.spec.pytorchjob import Progress

KEY = ("team", "flowers")


def job(generation: int = 1, state: str = "Running", uid: str = "u1") -> Manifest:
    condition = {"type": state, "status": "True", "reason": "", "message": ""}
    return {
        "metadata": {"namespace": KEY[0], "name": KEY[1], "uid": uid},
        "spec": {},
        "status": {"generation": generation, "conditions": [condition]},
    }


def pod(
    kind: str = "master", index: int = 0, *, generation: int = 1, phase: str = "Running", port: int | None = 9464
) -> Manifest:
    container: Manifest = {"name": names.CONTAINER, "ports": [{"name": names.PORT_NAME, "containerPort": 23456}]}
    if port is not None:
        container["ports"].append({"name": names.PROGRESS_PORT_NAME, "containerPort": port})
    labels = {
        names.LABEL_REPLICA_TYPE: kind,
        names.LABEL_REPLICA_INDEX: str(index),
        names.LABEL_GENERATION: str(generation),
    }
    return {
        "metadata": {"namespace": KEY[0], "name": f"flowers-{kind}-{index}", "labels": labels},
        "spec": {"containers": [container]},
        "status": {"phase": phase, "podIP": LOOPBACK},
    }


def test_where_a_pod_has_no_address_its_node_writes_what_it_answers() -> None:
    async def main() -> None:
        world = World()
        world.answer = ConnectionError("no pod is to be asked")
        world.pods[0]["metadata"]["annotations"] = {names.ANNOTATION_PROGRESS: '{"epoch": 3, "unknown": 1}'}
        world.poller(world.job or {})
        running = asyncio.create_task(world.poller.run())
        async with asyncio.timeout(10):
            while not world.told:
                await asyncio.sleep(0.001)
        assert world.poller(world.job or {}) == {"epoch": 3}
        world.pods[0]["metadata"]["annotations"] = {names.ANNOTATION_PROGRESS: "[" * 100_000}
        await asyncio.sleep(0.05)
        assert world.poller(world.job or {}) == {"epoch": 3}, "nonsense changes nothing"
        assert world.asked == 0
        running.cancel()

    asyncio.run(main())


class World:
    """What the poller sees, and what it tells."""

    def __init__(self) -> None:
        self.job: Manifest | None = job()
        self.pods = [pod()]
        self.told: list[tuple[str, str]] = []
        self.answer: bytes | Exception = b"{}"
        self.asked = 0
        self.caches = Caches(job=lambda *key: self.job, pods=lambda uid: self.pods, services=lambda uid: [])
        self.poller = ProgressPoller(self.ask, self.caches, self.told.append, every_s=0.001)

    async def ask(self, pod: Manifest, port: int) -> bytes:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def play(self, body: Callable[[], Awaitable[None]]) -> None:
        async def play() -> None:
            running = asyncio.create_task(self.poller.run())
            await body()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        asyncio.run(play())

    async def until(self, what: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not what():
                await asyncio.sleep(0.001)

    async def asked_again(self, times: int = 2) -> None:
        wanted = self.asked + times
        await self.until(lambda: self.asked >= wanted)


def test_a_bug_that_one_pod_brings_out_ends_neither_the_asking_nor_the_controller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.answer = ZeroDivisionError()

    async def body() -> None:
        world.poller(world.job or {})
        await world.asked_again()
        world.answer = b'{"epoch": 2}'
        await world.until(lambda: world.told)
        assert world.poller(world.job or {}) == {"epoch": 2}

    world.play(body)
    assert "team/flowers: a bug as its progress was asked for" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_an_answer_is_kept_and_told_once() -> None:
    world = World()
    world.answer = b'{"epoch": 2, "loss": 0.5, "unknown": {"deep": []}}'

    async def body() -> None:
        assert world.poller(job()) is None  # never waits
        await world.until(lambda: world.told)
        assert world.poller(job()) == {"epoch": 2, "loss": 0.5}
        await world.asked_again(3)
        assert world.told == [KEY]
        world.answer = b'{"epoch": 3}'
        await world.until(lambda: len(world.told) == 2)
        assert world.poller(job()) == {"epoch": 3}

    world.play(body)


def test_what_an_earlier_gang_said_is_not_said_of_the_next() -> None:
    world = World()
    world.answer = b'{"epoch": 2}'

    async def body() -> None:
        world.poller(job())
        await world.until(lambda: world.told)
        assert world.poller(job(generation=2)) is None
        world.job, world.pods = job(generation=2), [pod(generation=2)]
        await world.until(lambda: len(world.told) == 2)  # the same numbers, of another gang
        assert world.poller(job(generation=2)) == {"epoch": 2}

    world.play(body)


@pytest.mark.parametrize("after", [None, job(state="Succeeded"), job(state="Suspended"), job(uid="another")])
def test_a_job_that_runs_no_more_is_forgotten(after: Manifest | None) -> None:
    world = World()

    async def body() -> None:
        world.poller(job())
        await world.asked_again()
        world.job = after
        await world.until(lambda: not world.poller.known())
        asked = world.asked
        await asyncio.sleep(0.02)
        assert world.asked <= asked + 1  # one may have been under way

    world.play(body)


def test_only_running_jobs_are_asked() -> None:
    world = World()

    async def body() -> None:
        for state in ("Created", "Restarting", "Suspended"):
            assert world.poller(job(state=state)) is None
        assert world.poller.known() == []

    world.play(body)


def test_a_pod_that_does_not_answer_harms_nothing_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.answer = b'{"epoch": 1}'

    async def body() -> None:
        world.poller(job())
        await world.until(lambda: world.told)
        world.answer = ConnectionRefusedError("refused")
        await world.asked_again(3 * asking.TELL_AFTER)
        assert world.poller(job()) == {"epoch": 1}  # the newest that is known

    with caplog.at_level(logging.WARNING, "trainserve"):
        world.play(body)
    (line,) = caplog.messages
    assert line == "team/flowers: its progress cannot be read from pod flowers-master-0: refused"


def test_a_silent_pod_takes_two_seconds_of_one_of_twenty_and_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "ANSWER_S", 0.05)
    world = World()
    at_once = most = 0

    async def ask(pod: Manifest, port: int) -> bytes:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            await asyncio.Event().wait()
        finally:
            at_once -= 1
        raise AssertionError

    jobs = {("team", f"job-{number}"): job(uid=f"u{number}") for number in range(100)}
    for (_, name), each in jobs.items():
        each["metadata"]["name"] = name
    caches = Caches(job=lambda *key: jobs[key], pods=lambda uid: [pod()], services=lambda uid: [])
    world.poller = ProgressPoller(ask, caches, world.told.append, every_s=0.001)

    async def body() -> None:
        for each in jobs.values():
            assert world.poller(each) is None
        await world.until(lambda: most == asking.AT_ONCE)
        await asyncio.sleep(0.2)

    world.play(body)
    assert most == asking.AT_ONCE


def test_many_jobs_are_asked_less_often_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "A_SECOND", 1000)
    world = World()
    jobs = {("team", f"job-{number}"): job(uid=f"u{number}") for number in range(300)}
    for (_, name), each in jobs.items():
        each["metadata"]["name"] = name
    caches = Caches(job=lambda *key: jobs[key], pods=lambda uid: [pod()], services=lambda uid: [])
    world.poller = ProgressPoller(world.ask, caches, world.told.append, every_s=0.0)

    async def body() -> None:
        began = asyncio.get_running_loop().time()
        for each in jobs.values():
            world.poller(each)
        await world.until(lambda: world.asked >= 900)
        took_s = asyncio.get_running_loop().time() - began
        assert took_s >= 0.6  # the first round at once, each of the others 300 / 1000 s later

    world.play(body)


def test_the_last_words_of_a_gang_count_before_what_was_asked() -> None:
    world = World()
    end = {"exitCode": 0, "message": json.dumps({"progress": {"step": 30, "etaSeconds": 0.0, "x": "y"}})}
    status = {"phase": "Succeeded", "containerStatuses": [{"name": names.CONTAINER, "state": {"terminated": end}}]}
    world.pods = [{**pod("worker"), "status": {"phase": "Running"}}, {**pod(), "status": status}]
    assert world.poller(job()) == {"step": 30, "etaSeconds": 0.0}
    assert world.poller(job(generation=2)) is None  # an older gang's
    for message in ("done", "[]", '{"progress": "x"}', '{"progress": {"step": -1}}', '{"progress": {"step": NaN}}'):
        end["message"] = message
        assert world.poller(job()) is None
    end["message"], end["exitCode"] = '{"progress": {"step": 3}}', 1
    assert world.poller(job()) is None


def test_the_lowest_rank_that_runs_and_declares_the_port_is_asked() -> None:
    workers = [pod("worker", index) for index in (10, 2)]
    assert speaker([*workers, pod()], 1) == (pod(), 9464)
    assert speaker(workers, 1) == (workers[1], 9464)
    assert speaker([pod(port=7000)], 1) == (pod(port=7000), 7000)
    assert speaker([pod(port=None)], 1) is None
    assert speaker([pod(phase="Pending"), pod(generation=2)], 1) is None
    going = pod()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert speaker([going], 1) is None


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("192.168.0.7", True),
        ("100.64.3.4", True),
        ("fd00::7", True),
        ("2001:db8::7", True),
        (LOOPBACK, False),
        ("::1", False),
        ("169.254.169.254", False),
        ("fe80::1", False),
        ("::ffff:169.254.169.254", False),
        ("0.0.0.0", False),
        ("::", False),
        ("224.0.0.1", False),
    ],
)
def test_addresses_of_pods(address: str, allowed: bool) -> None:
    assert is_pod_address(ip_address(address)) is allowed


@pytest.mark.parametrize("address", ["", "localhost", "example.org", "10.0.0.1:80", "10.0.0.1/x", LOOPBACK])
def test_what_is_no_address_of_a_pod_is_not_connected_to(address: str) -> None:
    target = pod(port=1)
    target["status"]["podIP"] = address
    with pytest.raises(ValueError, match="address"):
        asyncio.run(ask_at_address(target, 1))


Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _ask_server(speak: Speak, limit_s: float = 5.0) -> bytes:
    async def ask() -> bytes:
        ended = asyncio.Event()

        async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await speak(reader, writer)
            finally:
                writer.close()
                ended.set()

        server = await asyncio.start_server(answering, LOOPBACK, 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with asyncio.timeout(limit_s):
                return await ask_at_address(pod(port=port), port, lambda address: True)
        finally:
            await asyncio.wait_for(ended.wait(), 10)  # also where we gave up
            server.close()
            await server.wait_closed()

    return asyncio.run(ask())


def _says(answer: bytes, seen: list[bytes] | None = None) -> Speak:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(request)
        try:
            writer.write(answer)
            await writer.drain()
            writer.close()
        except ConnectionError:
            writer.transport.abort()

    return speak


def test_a_kind_server_is_understood() -> None:
    seen: list[bytes] = []
    body = _ask_server(_says(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"epoch": 1}', seen))
    assert read_progress(body) == {"epoch": 1}
    assert seen[0].startswith(b"GET /progress HTTP/1.0\r\nHost: ")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * ANSWER_BYTES + b"\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * ANSWER_BYTES,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b"\xff" * 1000,
    ],
)
def test_answers_that_are_refused_whole(answer: bytes) -> None:
    with pytest.raises(ValueError, match="its answer"):
        _ask_server(_says(answer))


@pytest.mark.parametrize(
    "body",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00\x00",
    ],
)
def test_nothing_is_unpacked(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra data|decode"):
        read_progress(_ask_server(_says(body)))


def test_an_endless_answer_and_an_endlessly_slow_one_end() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"1" * 4096)
                await writer.drain()
        except ConnectionError:
            writer.transport.abort()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            writer.transport.abort()

    with pytest.raises(ValueError, match="more than 65536 bytes"):
        _ask_server(endless)
    with pytest.raises(TimeoutError):
        _ask_server(slow, limit_s=0.2)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b"{", "Expecting"),
        (b'{"loss": NaN}', "NaN"),
        (b'{"loss": -Infinity}', "Infinity"),
        (b'{"loss": 1e999}', "its loss"),
        (b'{"step": -1}', "its step"),
        (b'{"step": 1.5}', "its step"),
        (b'{"step": true}', "its step"),
        (b'{"step": "7"}', "its step"),
        (b'{"step": 1' + b"0" * 5000 + b"}", "digits|its step"),
        (b'{"epoch": 4294967296}', "its epoch"),
        (b'{"top1": 1.01}', "its top1"),
        (b'{"top1": true}', "its top1"),
        (b'{"etaSeconds": -5}', "its etaSeconds"),
        (b'{"stalled": "yes"}', "its stalled"),
        (b'{"stalled": 1}', "its stalled"),
        (b'{"loss": {"a": 1}}', "its loss"),
        (b'{"loss": "' + b"a" * 2**20 + b'"}', "its loss"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"a":' * 12_000, "nested too deeply"),
        (b"\xff\xfe\x00", "codec"),
    ],
)
def test_values_that_are_refused(body: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        read_progress(body)
    assert len(str(refused.value)) < 300


def test_a_loss_that_explodes_is_told_as_long_as_it_is_a_number() -> None:
    assert read_progress(b'{"loss": -1e300}') == {"loss": -1e300}


def test_unknown_fields_and_nulls_are_dropped() -> None:
    body = b'{"epoch": 1, "loss": null, "message": "<script>", "conditions": [], "__proto__": {}}'
    assert read_progress(body) == {"epoch": 1}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(["epoch", "step", "loss", "top1", "etaSeconds", "stalled", "summary", "x"])


@settings(deadline=None)
@given(st.dictionaries(fields, anything, max_size=4))
def test_whatever_a_pod_says_only_numbers_in_range_come_through(said: dict[str, Any]) -> None:
    try:
        kept = read_progress(json.dumps(said).encode())
    except ValueError:
        return
    assert all(type(value) in (int, float, bool) and math.isfinite(value) for value in kept.values())
    assert all(abs(value) <= 10**15 for name, value in kept.items() if name != "loss")
    Progress.model_validate(kept)
    assert kept.keys() <= said.keys()


MINUTES = 2  # simulated


class Counted:
    """A cluster that counts writes of a job's status."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.at: list[float] = []
        self.clock: Callable[[], float] = lambda: 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    async def patch(self, *args: Any, **kwargs: Any) -> Manifest:
        if kwargs.get("subresource") == "status":
            self.at.append(self.clock())
        patched: Manifest = await self.cluster.patch(*args, **kwargs)
        return patched


@pytest.mark.parametrize("tick_s", [0.7, 7.0])
def test_progress_costs_at_most_one_status_write_in_five_seconds_and_none_when_nothing_changed(tick_s: float) -> None:
    told: dict[str, Any] = {}
    with Scenario(pytorchjob(workers=1), progress=lambda job: dict(told) or None) as scenario:
        counted = Counted(scenario.cluster)
        counted.clock = lambda: scenario.now
        scenario.controller_restarts(counted)  # type: ignore[arg-type]
        scenario.settle()
        scenario.start_pods()
        counted.at.clear()
        began, step = scenario.now, 0
        while scenario.now < began + MINUTES * 60:
            scenario.now += tick_s
            step += 1
            told |= {"epoch": 1, "step": step, "loss": 1 / step, "etaSeconds": 1000.0 - step}
            for _ in range(2):  # a pod's events, a resync: whatever makes the controller look
                scenario.look()
                scenario.sync()
        gaps_s = [later - earlier for earlier, later in itertools.pairwise(counted.at)]
        assert min(gaps_s) > 4  # lastReconcileTime has whole seconds, rounded down: less than 5, and then more
        assert MINUTES * 60 / (5 + tick_s) - 2 <= len(counted.at) <= MINUTES * 60 / 5 + 1
        scenario.wait(5)
        assert scenario.status()["progress"]["step"] == step  # the newest one in the end
        counted.at.clear()
        for _ in range(30):
            scenario.now += 7
            scenario.look()
            scenario.sync()
        assert counted.at == []


def test_a_controller_whose_pods_are_asked_writes_what_they_say_and_their_last_words() -> None:
    """Informers, queue, poller and syncer in real time; the pod is a server on loopback."""
    step = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"epoch": 1, "step": step, "checkpointStep": 1})
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body.encode())
        await writer.drain()
        writer.close()

    async def play() -> None:
        nonlocal step
        server = await asyncio.start_server(speak, LOOPBACK, 0)
        port = server.sockets[0].getsockname()[1]
        cluster = MemoryCluster()

        async def ask(pod: Manifest, port: int) -> bytes:
            return await ask_at_address(pod, port, lambda address: True)

        controller = Controller(cluster, NAMESPACE, ask_progress=ask)
        kubelet = Kubelet(cluster, NAMESPACE, time.time)
        running = asyncio.create_task(controller.run())

        async def progress() -> Any:
            found = await cluster.get(names.PYTORCHJOB, NAMESPACE, "flowers")
            return (found.get("status") or {}).get("progress")

        async def until(what: Callable[[], Awaitable[Any]]) -> None:
            async with asyncio.timeout(20):
                while not await what():
                    await asyncio.sleep(0.01)

        async def there() -> bool:
            return len((await cluster.list(names.POD, NAMESPACE)).items) == 2

        wanted = pytorchjob(workers=1)
        container = wanted["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
        container["ports"] = [{"name": names.PROGRESS_PORT_NAME, "containerPort": port}]
        await cluster.create(names.PYTORCHJOB, NAMESPACE, wanted)
        await until(there)
        step = 7
        await kubelet.start()
        status = {"status": {"podIP": LOOPBACK}}
        await cluster.patch(names.POD, NAMESPACE, "flowers-master-0", status, subresource="status")
        await until(progress)
        assert await progress() == {"epoch": 1, "step": 7, "checkpointStep": 1}
        last = json.dumps({"progress": {"epoch": 2, "step": 9, "etaSeconds": 0.0}})
        await kubelet.end("flowers-master-0", 0, message=last)

        async def succeeded() -> bool:
            found = await cluster.get(names.PYTORCHJOB, NAMESPACE, "flowers")
            return bool(found["status"].get("completionTime"))

        await until(succeeded)
        assert await progress() == {"epoch": 2, "step": 9, "etaSeconds": 0.0}
        controller.stop()
        await asyncio.wait_for(running, 10)
        server.close()
        await server.wait_closed()

    asyncio.run(play())


@pytest.mark.parametrize(("again_s", "expected"), [(5.0, 5.0), (None, None)])
def test_a_job_whose_source_tells_by_itself_is_not_looked_at_every_five_seconds(
    again_s: float | None, expected: float | None
) -> None:
    with Scenario(pytorchjob(workers=0)) as scenario:
        scenario.settle()
        scenario.start_pods()
        caches = Caches(
            job=lambda namespace, name: scenario._seen["jobs"][0],
            pods=lambda uid: scenario._seen["pods"],
            services=lambda uid: scenario._seen["services"],
        )
        syncer = Syncer(
            scenario.cluster,
            caches,
            clock=lambda: scenario.now,
            progress_source=lambda job: {"epoch": 1},
            progress_again_s=again_s,
        )
        for _ in range(2):
            scenario.look()
            found_s = scenario.run(syncer.sync((NAMESPACE, "flowers")))
        assert found_s == expected
        assert scenario.status()["progress"] == {"epoch": 1}
