"""The operator's parts together, on the server in memory: who leads works, all answer, the end is in order."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from support.command import command
from support.guarded import Guarded
from support.runs import wait_until
from support.scenario import NAMESPACE, pytorchjob
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.local.server import MemoryCluster
from trainserve.machine.ports import Reserved
from trainserve.operator import process
from trainserve.operator.lease import Timing
from trainserve.operator.metrics import Metrics
from trainserve.operator.process import operate
from trainserve.operator.settings import Address, Settings

FAST = Timing(duration_s=1, renew_deadline_s=0.6, retry_s=0.05)


@pytest.fixture(autouse=True)
def _captured(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(logging.getLogger("trainserve"), "propagate", True)
    caplog.set_level(logging.INFO, "trainserve")


class Operator:
    """One that runs, and where it answers."""

    def __init__(self, url: str, session: aiohttp.ClientSession, stopped: asyncio.Event) -> None:
        self.url = url
        self.session = session
        self.stop = stopped.set

    async def ask(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.url + path) as answer:
            return answer.status, await answer.text()

    async def metric(self, name: str) -> float | None:
        found = re.search(rf"^trainserve_operator_{name} (\S+)$", (await self.ask("/metrics"))[1], re.MULTILINE)
        return float(found[1]) if found else None


@asynccontextmanager
async def operator(
    cluster: MemoryCluster, caplog: pytest.LogCaptureFixture, *, lease: Timing | None = FAST
) -> AsyncIterator[Operator]:
    settings = Settings(
        namespaces=(NAMESPACE, "another"), lease=lease, metrics=Address("127.0.0.1", 0), resync_s=3600.0
    )
    stopped = asyncio.Event()
    before = len(_addresses(caplog))
    running = asyncio.create_task(operate(cluster, settings, Metrics(), stopped))
    await until(lambda: _true(len(_addresses(caplog)) > before or running.done()))
    async with aiohttp.ClientSession() as session:
        yield Operator(_addresses(caplog)[-1], session, stopped)
        stopped.set()
        await asyncio.wait_for(running, 5)


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await what():
            await asyncio.sleep(0.005)


async def _true(value: bool) -> bool:
    return value


def _addresses(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [found[0] for record in caplog.records if (found := re.search(r"http://\S+:\d+", record.getMessage()))]


async def state(cluster: MemoryCluster) -> str:
    job = await cluster.get(names.PYTORCHJOB, NAMESPACE, "flowers")
    listed: list[Manifest] = (job.get("status") or {}).get("conditions") or [{"type": ""}]
    return str(listed[-1]["type"])


async def holder(cluster: MemoryCluster) -> str:
    lease = await cluster.get(names.LEASE, NAMESPACE, names.OPERATOR_LEASE)
    return str(lease["spec"]["holderIdentity"])


def test_one_operator_works_answers_and_gives_the_lease_back(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        cluster = MemoryCluster()

        async def created() -> bool:
            return await state(cluster) == "Created"

        await cluster.create(names.PYTORCHJOB, NAMESPACE, pytorchjob())
        async with operator(cluster, caplog) as one:
            await until(created)
            assert await one.ask("/healthz") == (200, "ok\n")
            assert await one.ask("/readyz") == (200, "ok\n")
            assert await one.metric("leader") == 1
            page = (await one.ask("/metrics"))[1]
            assert 'training_operator_jobs_created_total{framework="pytorch",job_namespace="team"} 1.0' in page
            assert f'trainserve_operator_jobs{{job_namespace="{NAMESPACE}",state="Created"}} 1.0' in page
            assert await holder(cluster) != ""
        assert await holder(cluster) == ""

    asyncio.run(play())


def test_one_that_waits_is_ready_and_takes_over_when_the_other_ends(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        cluster = MemoryCluster()
        async with operator(cluster, caplog) as first:
            await until(lambda: _is(first, "leader", 1))
            async with operator(cluster, caplog) as second:

                async def ready() -> bool:
                    return (await second.ask("/readyz"))[0] == 200

                await until(ready)
                assert await second.metric("leader") == 0
                held = await holder(cluster)
                first.stop()

                async def handed_over() -> bool:
                    return await holder(cluster) not in {"", held}

                await until(handed_over)
                await cluster.create(names.PYTORCHJOB, NAMESPACE, pytorchjob())

                async def created() -> bool:
                    return await state(cluster) == "Created"

                await until(created)
                assert await second.metric("leader") == 1

    asyncio.run(play())


def test_jobs_that_changed_before_the_lead_are_looked_at_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        cluster = MemoryCluster()
        async with operator(cluster, caplog) as first, operator(cluster, caplog) as second:
            await until(lambda: _is(first, "leader", 1))
            leases = await cluster.list(names.LEASE, NAMESPACE)
            first.stop()
            await cluster.create(names.PYTORCHJOB, NAMESPACE, pytorchjob())

            async def created() -> bool:
                return await state(cluster) == "Created"

            await until(created)
            await until(lambda: _is(second, "leader", 1))
            assert len(leases.items) == 1

    asyncio.run(play())


def test_without_an_election_there_is_no_lease(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        cluster = MemoryCluster()
        await cluster.create(names.PYTORCHJOB, NAMESPACE, pytorchjob())
        async with operator(cluster, caplog, lease=None) as one:

            async def created() -> bool:
                return await state(cluster) == "Created"

            await until(created)
            assert await one.metric("leader") == 1
            assert (await cluster.list(names.LEASE, NAMESPACE)).items == []

    asyncio.run(play())


def test_not_ready_says_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    class WithoutCrd(MemoryCluster):
        async def list(self, kind: names.Kind, *args: object, **kwargs: object):  # type: ignore[no-untyped-def, override]
            if kind == names.PYTORCHJOB:
                raise ConnectionError("no answer")
            return await super().list(kind, *args, **kwargs)  # type: ignore[arg-type]

    async def play() -> None:
        async with operator(WithoutCrd(), caplog) as one:

            async def others_are_there() -> bool:
                return "pods" not in (await one.ask("/readyz"))[1]

            await until(others_are_there)
            status, text = await one.ask("/readyz")
            assert status == 503
            assert f"not in the cache yet: pytorchjobs of {NAMESPACE}\n" in text
            assert (await one.ask("/healthz"))[0] == 200

    asyncio.run(play())


def test_a_part_that_breaks_ends_the_process_with_what_it_raised() -> None:
    class Broken(MemoryCluster):
        async def list(self, kind: names.Kind, *args: object, **kwargs: object):  # type: ignore[no-untyped-def, override]
            if kind == names.SERVICE:
                raise ZeroDivisionError
            return await super().list(kind, *args, **kwargs)  # type: ignore[arg-type]

    async def play() -> None:
        cluster = Broken()
        settings = Settings(namespaces=(NAMESPACE,), lease=FAST)
        with pytest.raises(ExceptionGroup) as broken:
            await operate(cluster, settings, Metrics(), asyncio.Event())
        assert broken.value.subgroup(ZeroDivisionError) is not None
        leases = (await cluster.list(names.LEASE, NAMESPACE)).items
        assert [lease["spec"]["holderIdentity"] for lease in leases] in ([], [""])

    asyncio.run(play())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_asks_for_the_end_and_the_second_is_it(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    ended: list[int] = []

    async def play() -> None:
        stopped = process._stopped_by_signals()
        signal.raise_signal(number)
        await asyncio.wait_for(stopped.wait(), 5)
        assert ended == []
        signal.raise_signal(number)
        async with asyncio.timeout(5):
            while not ended:
                await asyncio.sleep(0.01)
        assert ended == [1]
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(each)

    monkeypatch.setattr(os, "_exit", ended.append)
    asyncio.run(play())


@pytest.mark.slow
def test_an_api_server_that_is_away_ends_nothing_and_sigterm_does(tmp_path: Path) -> None:
    ports = Reserved()
    kubeconfig = tmp_path / "config"
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{ports.port('nobody')}"}}
    contexts = [{"name": "x", "context": {"cluster": "c"}}]
    kubeconfig.write_text(json.dumps({"clusters": [cluster], "contexts": contexts, "current-context": "x"}))
    words = command("operator", "run", "--kubeconfig", kubeconfig, "--metrics-address", "127.0.0.1:0")
    running = Guarded([*words, "--leader-elect-retry-period", "0.1s", "--log-format", "json"], tmp_path / "log")
    try:
        wait_until(lambda: "does not answer us" in running.log.read_text(), "it asks the server", 60)
        time.sleep(3.0)  # time for thirty tries of the lease, and three of each watch
        assert running.alive()
    finally:
        code = running.stop(signal.SIGTERM)
        ports.release_all()
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    assert code == 0, running.tail()
    assert lines[-1]["msg"].startswith("SIGTERM: ending")
    assert [line["msg"].partition(":")[0] for line in lines if line["level"] == "warning"] == [
        "the API server does not answer us"
    ]


async def _is(one: Operator, name: str, value: float) -> bool:
    return await one.metric(name) == value
