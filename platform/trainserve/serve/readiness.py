"""Wait until a model really answers: its workers are READY and a golden picture gets the right class.

TorchServe's /ping says Healthy while models load, and while every worker crashes: it is not asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.machine.usage import MIB
from trainserve.package.description import Golden
from trainserve.package.mar import MarInfo
from trainserve.serve.client import RestClient
from trainserve.serve.config import worker_failure

POLL_S = 0.2

_log = logging.getLogger(__name__)


def await_ready(
    models: dict[str, MarInfo],
    *,
    rest_url: str,
    management_url: str,
    log: Path,
    check_alive: Callable[[], None],
    timeout_s: float,
) -> None:
    """Return when every model answers; `models` maps served names to archives.

    `check_alive` raises when the server has ended. Raises EnvironmentProblem with the worker's traceback when a model
    does not load, and when `timeout_s` is over.
    """
    deadline = time.monotonic() + timeout_s
    waiting = list(models)
    with httpx.Client(base_url=management_url, timeout=5.0, trust_env=False) as management:
        while waiting:
            check_alive()
            _raise_worker_failure(log, waiting)
            waiting = [name for name in waiting if not _workers_ready(management, name)]
            if waiting and time.monotonic() > deadline:
                raise EnvironmentProblem(
                    f"model {', '.join(waiting)} was not ready after {timeout_s:g} s",
                    hint=f"its log is {log}; is the machine busy with something else? then try again",
                )
            if waiting:
                time.sleep(POLL_S)
    with RestClient(rest_url, timeout_s=max(5.0, deadline - time.monotonic())) as client:
        for name, mar in models.items():
            golden = servable_golden(mar)
            if golden is None:
                _log.warning(
                    "model %s: its golden pictures are all above its own limits (serve.maxPixels %d, maxUploadMib %d), "
                    "so none was sent over REST; its handler has checked them. hint: package it with higher limits",
                    name,
                    mar.description.serve.max_pixels,
                    mar.description.serve.max_upload_mib,
                )
                continue
            try:
                answered = client.predict(mar.golden_picture(golden), model=name, label=f"golden picture {golden.file}")
            except UserError as error:
                raise EnvironmentProblem(
                    f"model {name} refuses its own test: {error.message}", hint="package the run again, and serve that"
                ) from None
            if answered.classes[0].name != golden.class_:
                raise EnvironmentProblem(
                    f"model {name} answers golden picture {golden.file} with {answered.classes[0].name!r}, "
                    f"training said {golden.class_!r}"
                )


def servable_golden(mar: MarInfo) -> Golden | None:
    """The first golden picture that is within the model's own limits for pictures of strangers; None where none is.

    Bundles of before had golden pictures of any size, and limits can be lowered when a bundle is packed again.
    """
    serve = mar.description.serve
    for golden in mar.golden:
        data = mar.golden_picture(golden)
        if len(data) <= serve.max_upload_mib * MIB and pixels(data) <= serve.max_pixels:
            return golden
    return None


def pixels(picture: bytes) -> int:
    """Width x height as the file's head says; 0 for what is no picture."""
    try:
        with Image.open(BytesIO(picture)) as opened:
            return opened.width * opened.height
    except (OSError, ValueError, Image.DecompressionBombError):
        return 0


def worker_pids(management_url: str, model: str) -> list[int]:
    """Process ids of a model's workers."""
    with httpx.Client(base_url=management_url, timeout=5.0, trust_env=False) as management:
        return [int(worker["pid"]) for worker in _workers(management, model)]


def _workers_ready(management: httpx.Client, model: str) -> bool:
    workers = _workers(management, model)
    return bool(workers) and all(worker["status"] == "READY" for worker in workers)


def _workers(management: httpx.Client, model: str) -> list[dict[str, Any]]:
    """The workers of a model; none while the management API does not answer or does not know it yet."""
    try:
        response = management.get(f"/models/{model}")
        if response.status_code != 200:
            return []
        description = response.json()[0]
    except (httpx.HTTPError, ValueError, LookupError):
        return []  # not listening yet
    workers: list[dict[str, Any]] = description["workers"]
    return workers if len(workers) >= description["minWorkers"] else []


def _raise_worker_failure(log: Path, models: list[str]) -> None:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return  # not started that far
    failure = worker_failure(lines)
    if failure is not None:
        last = failure.splitlines()[-1]
        raise EnvironmentProblem(f"model {', '.join(models)} does not load: {last}\n{failure}", hint=f"log: {log}")
