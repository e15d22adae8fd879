"""The operator as a process: connect, take the lease, work until a signal, end in order.

The first SIGTERM, SIGINT or SIGHUP ends it in order with exit code 0, as Kubernetes' own controllers do: passes in
progress are finished, then the lease is given back, so that another operator begins at once. A second one ends it at
once with 1.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from trainserve import __version__
from trainserve.errors import EXIT_OK, EXIT_RUN_FAILED
from trainserve.kube import names
from trainserve.kube.client import connect
from trainserve.kube.cluster import Cluster
from trainserve.operator.election import Election, identity
from trainserve.operator.endpoints import STUCK_PASS_S, Heartbeat, serving
from trainserve.operator.fence import Fenced
from trainserve.operator.kubeflow import Lookout
from trainserve.operator.main import Controller
from trainserve.operator.metrics import Metrics
from trainserve.operator.progress import Ask, ask_at_address, through_api_server
from trainserve.operator.settings import Settings

log = logging.getLogger(__name__)

DRAIN_S = 20.0  # for passes in progress after a signal; a pod has 30 s by default
_OWN_NAMESPACE = Path(names.ACCOUNT_FOLDER) / "namespace"


def run(settings: Settings) -> int:
    """Work until a signal; returns the exit code.

    Raises EnvironmentProblem where no cluster is known, or the address for metrics cannot be listened on.
    """
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    stopped = _stopped_by_signals()
    metrics = Metrics()
    async with connect(settings.kubeconfig, settings.context, on_request=metrics.request) as cluster:
        cluster.tell_outages()
        ask = {"pod-ip": ask_at_address, "proxy": through_api_server(cluster.read_pod), "none": None}[settings.progress]
        await operate(cluster, settings, metrics, stopped, ask)
    return EXIT_OK


async def operate(
    cluster: Cluster, settings: Settings, metrics: Metrics, stopped: asyncio.Event, ask_progress: Ask | None = None
) -> None:
    """Work until `stopped`, then end in order. Raises EnvironmentProblem where Kubeflow's operator works there, too."""
    lookout = Lookout(cluster, settings.namespaces)
    election = None
    if settings.lease is not None:
        election = Election(
            cluster,
            settings.lease_namespace or _own_namespace(settings.namespaces),
            identity(),
            settings.lease,
            # The controller is made below, of what writes by this election's leave.
            started=lambda: controller.lead(),  # noqa: PLW0108
            stopped=lambda: controller.follow(),  # noqa: PLW0108
        )
    controller = Controller(
        cluster if election is None else Fenced(cluster, election.writable_s),
        settings.namespaces or None,
        workers=settings.workers,
        ask_progress=ask_progress,
        resync_s=settings.resync_s,
        leading=election is None,
        telemetry=metrics,
        gang=settings.gang,
    )
    heartbeat = Heartbeat()
    metrics.watch(
        jobs=controller.jobs,
        depth=controller.queue.depth,
        oldest_s=controller.queue.oldest_s,
        longest_pass_s=controller.longest_pass_s,
        leading=lambda: election is None or election.leading,
        lag_s=heartbeat.lag_s,
    )
    async with _endpoints(settings, controller, heartbeat, metrics):
        tasks = [asyncio.create_task(lookout.look())]  # before anything is written
        try:
            await _until_over(tasks, stopped)
            where = ", ".join(settings.namespaces) or "all namespaces"
            log.info("trainserve %s works on the PyTorchJobs of %s, %d at a time", __version__, where, settings.workers)
            parts = [heartbeat.run(), lookout.run()] + ([] if election is None else [election.run()])
            working = asyncio.create_task(controller.run())
            tasks = [*tasks, working, *(asyncio.create_task(part) for part in parts)]
            await _until_over(tasks[1:], stopped)
            controller.stop()
            await _drained(working)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if election is not None:
                await election.release()


async def _until_over(tasks: Sequence[asyncio.Task[None]], stopped: asyncio.Event) -> None:
    """Until `stopped`. A part that ends before has failed, and what it raised is raised here."""
    waiting = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait((*tasks, waiting), return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        waiting.cancel()


async def _drained(controller: asyncio.Task[None]) -> None:
    done, _ = await asyncio.wait((controller,), timeout=DRAIN_S)
    if not done:
        log.warning("passes in progress did not end within %.0f s; what they left undone is done again", DRAIN_S)


@asynccontextmanager
async def _endpoints(
    settings: Settings, controller: Controller, heartbeat: Heartbeat, metrics: Metrics
) -> AsyncIterator[None]:
    if settings.metrics is None:
        yield
        return

    def health() -> list[str]:
        longest_s = controller.longest_pass_s()
        stuck = [f"a pass over one job has taken {longest_s:.0f} s"] if longest_s > STUCK_PASS_S else []
        return heartbeat.problems() + stuck

    def ready() -> list[str]:
        return [f"not in the cache yet: {what}" for what in controller.not_synced()]

    async with serving(
        settings.metrics, health=health, ready=ready, metrics=metrics.page, metrics_type=metrics.content_type
    ) as address:
        log.info("/healthz, /readyz and /metrics on http://%s", address)
        yield


def _own_namespace(namespaces: Sequence[str]) -> str:
    """The pod's, where we are in one; else the first that is worked in."""
    try:
        return _OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        return namespaces[0] if namespaces else "default"


def _stopped_by_signals() -> asyncio.Event:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if stopped.is_set():
            log.warning("%s again: ending at once", number.name)
            os._exit(EXIT_RUN_FAILED)
        log.info("%s: ending when the passes in progress have", number.name)
        stopped.set()

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's wish
        numbers.append(signal.SIGHUP)  # its terminal was closed: the lease is given back all the same
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    return stopped
