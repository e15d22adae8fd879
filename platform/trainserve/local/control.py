"""How a command reaches the supervisor of a run: a unix socket, one line of JSON a request, one line an answer.

    {"verb": "get"}                          -> {"job": {...}, "pods": [...], "ranks": [...]}
    {"verb": "suspend", "reason": "..."}     -> {"job": {...}}; with "graceSeconds" it kills what is left by then

An answer is {"ok": true, "result": ...} or {"ok": false, "error": "...", "hint": "..." | null}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from trainserve.errors import EnvironmentProblem, PlatformError, UserError
from trainserve.kube.cluster import ApiError
from trainserve.local.rundir import RunDir
from trainserve.machine.temporary import own_folder

log = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Any]]
TIMEOUT_S = 10.0
MAX_LINE = 4 << 20  # bytes
MAX_PATH = 100  # bytes; a unix socket's path may have 108 on Linux, 104 on macOS
FOLDER_PREFIX = "trainserve-"


@contextlib.asynccontextmanager
async def serve(verbs: dict[str, Handler]) -> AsyncIterator[Path]:
    """Answer requests; yields the socket's path, in a folder of its own that only this user may enter."""
    with own_folder(FOLDER_PREFIX, MAX_PATH - len("/s")) as folder:
        path = folder / "s"

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):  # it did not wait for the answer
                try:
                    while line := await reader.readline():
                        writer.write(json.dumps(await _answer(verbs, line)).encode() + b"\n")
                        await writer.drain()
                finally:
                    writer.close()

        server = await asyncio.start_unix_server(connected, path, limit=MAX_LINE)
        path.chmod(0o600)
        try:
            yield path
        finally:
            server.close()


def remove_stale(run: RunDir) -> None:
    """Remove the socket's folder of a supervisor that died."""
    path = run.supervisor().get("socket")
    if path and Path(path).parent.name.startswith(FOLDER_PREFIX):
        shutil.rmtree(Path(path).parent, ignore_errors=True)  # most likely gone with a reboot


async def _answer(verbs: dict[str, Handler], line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
        verb = request.pop("verb")
        handler = verbs[verb]
    except (ValueError, KeyError, AttributeError, TypeError):
        return {"ok": False, "error": f"not a request: {line[:200]!r}", "hint": f"verbs are {', '.join(verbs)}"}
    try:
        return {"ok": True, "result": await handler(**request)}
    except PlatformError as error:
        return {"ok": False, "error": error.message, "hint": error.hint}
    except ApiError as error:
        return {"ok": False, "error": error.message, "hint": None}
    except TypeError as error:  # arguments that the verb does not have
        return {"ok": False, "error": f"{verb}: {error}", "hint": None}


def request(run: RunDir, verb: str, *, timeout_s: float = TIMEOUT_S, **args: Any) -> Any:
    """Ask the run's supervisor. Raises EnvironmentProblem when nobody answers, UserError when it says no."""
    path = run.supervisor().get("socket")
    try:
        if not path:
            raise FileNotFoundError(2, "there is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s)
            client.connect(path)
            client.sendall(json.dumps({"verb": verb, **args}).encode() + b"\n")
            with client.makefile("rb") as answers:
                line = answers.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError(f"the answer to {verb} is cut off")
        answer = json.loads(line)
    except (OSError, ValueError) as error:  # ValueError: no path, or no answer of ours
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise EnvironmentProblem(
            f"nobody answers for run {run.name!r}: {reason}",
            hint=f"platform status {run.name} shows its state; platform resume {run.name} goes on with it",
        ) from error
    if not answer["ok"]:
        raise UserError(f"run {run.name!r}: {answer['error']}", hint=answer["hint"])
    return answer["result"]
