"""What a node says of its pods: their status and progress, to a server that is away, refuses or changes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from support.runs import pod, until
from trainserve.kube import moments, names
from trainserve.kube.cluster import Forbidden, Invalid, Manifest
from trainserve.kube.informer import Backoff
from trainserve.kube.names import POD
from trainserve.local import nodestatus
from trainserve.local.nodeprogress import ProgressWriter
from trainserve.local.nodestatus import StatusWriter
from trainserve.local.server import MemoryCluster
from trainserve.machine.ports import loopback_of

NOW = 1_800_000_000.0
AT_ONCE = Backoff(first_s=0.0, limit_s=0.0)
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


def test_a_server_that_refuses_progress_is_not_asked_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    host = loopback_of("test of refused progress")

    async def main() -> None:
        cluster = Away()
        cluster.refuse = [Forbidden("pods are not yours to patch")]
        env = [{"name": names.ENV_OUTPUT, "value": "/out"}]
        found = [await cluster.create(POD, "ns", pod("a", "true", container_env=env))]
        asked: list[str] = []

        def host_of(manifest: Manifest) -> str:
            asked.append(manifest["metadata"]["name"])
            return host

        bodies = [b'{"epoch": %d}' % number for number in range(1, 1000)]
        async with await answering(host, bodies):
            writing = asyncio.create_task(ProgressWriter(cluster, lambda: found, host_of, every_s=0.01).run())
            await until(lambda: len(asked) >= 10)
            writing.cancel()
        assert len(cluster.patches) == 1

    asyncio.run(main())
    assert caplog.text.count("progress of pods in ns cannot be told: pods are not yours to patch") == 1
