"""The operator as a process: connect, work until a signal, end in order.

The first SIGTERM or SIGINT ends it in order (passes in progress finish) with exit code 0, as Kubernetes' own
controllers do; a second one ends it at once with 1.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from trainserve.errors import EXIT_OK, EXIT_RUN_FAILED
from trainserve.operator.main import Controller
from trainserve.operator.settings import Settings

log = logging.getLogger(__name__)

DRAIN_S = 20.0  # for passes in progress after a signal; a pod has 30 s by default


def run(settings: Settings) -> int:
    """Work until a signal; returns the exit code. Raises EnvironmentProblem where no cluster is known."""
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    from trainserve.kube.client import connect

    async with connect(settings.kubeconfig, settings.context) as cluster:
        controller = Controller(cluster, settings.namespaces or None, workers=settings.workers)
        stopped = _stopped_by_signals()
        running = asyncio.create_task(controller.run(), name="controller")
        waiting = asyncio.create_task(stopped.wait(), name="signals")
        log.info("working on PyTorchJobs of %s", ", ".join(settings.namespaces) or "all namespaces")
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        controller.stop()
        try:
            await asyncio.wait_for(running, DRAIN_S)
        except TimeoutError:
            log.warning("passes in progress did not end within %.0f s; what they left undone is done again", DRAIN_S)
    return EXIT_OK


def _stopped_by_signals() -> asyncio.Event:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if stopped.is_set():
            log.warning("%s again: ending at once", number.name)
            os._exit(EXIT_RUN_FAILED)
        log.info("%s: ending when the passes in progress have", number.name)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return stopped
