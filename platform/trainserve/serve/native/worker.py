"""The process of one model: `python -m trainserve.serve.native.worker FD`, started by process.py.

It imports the handler out of the unpacked archive, which loads the network and checks the golden pictures, and answers
batches in a few threads: torch and Pillow let others run while they compute. FD is a socket; when its other end is
gone, however that happened, this process removes the unpacked archive and ends.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib.util
import inspect
import json
import os
import queue
import re
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Protocol

from trainserve.package.handler_source import HANDLER
from trainserve.serve.native import wire
from trainserve.serve.native.handler_context import BatchContext, ModelContext, Reply

PR_SET_PDEATHSIG = 1
JSON_TYPE = re.compile(r"application/json\s*(;.*)?", re.IGNORECASE)


class Handler(Protocol):
    """What the archive's class can do."""

    def initialize(self, context: Any) -> None:
        """Load."""

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch."""


def main(arguments: list[str]) -> int:
    """Serve until the other end of the socket is gone; returns only when the model cannot be loaded."""
    faulthandler.enable()
    if sys.platform == "linux":  # where the end of file below would come late: while the archive loads
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    connection = socket.socket(fileno=int(arguments[0]))
    order, _ = wire.receive(connection)
    folder = Path(order["folder"])
    batches: queue.Queue[wire.Frame] = queue.Queue()
    threading.Thread(target=_read, args=(connection, batches, folder), daemon=True).start()
    try:
        handler = _load(folder, order["name"], order["batchSize"])
    except Exception as error:
        traceback.print_exc()
        wire.send(connection, {"failed": f"{type(error).__name__}: {error}"})
        return 1
    wire.send(connection, {"ready": True})
    writing = threading.Lock()
    for _ in range(order["threads"] - 1):
        threading.Thread(target=_work, args=(handler, batches, connection, writing), daemon=True).start()
    _work(handler, batches, connection, writing)
    return 0


def _load(folder: Path, name: str, batch_size: int) -> Handler:
    """The archive's handler, initialised. Whatever it raises is the reason why it cannot be served."""
    file = folder / HANDLER
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    own = [item for _, item in inspect.getmembers(module, inspect.isclass) if item.__module__ == module.__name__]
    if len(own) != 1:
        raise ValueError(f"{HANDLER} defines {len(own)} classes, a handler is one")
    made: Any = own[0]
    handler: Handler = made()
    handler.initialize(ModelContext.of(folder, name, batch_size))
    return handler


def _read(connection: socket.socket, batches: queue.Queue[wire.Frame], folder: Path) -> None:
    try:
        while True:
            batches.put(wire.receive(connection))
    except wire.Closed:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)  # also while a batch computes: nobody waits for it any more


def _work(
    handler: Handler, batches: queue.Queue[wire.Frame], connection: socket.socket, writing: threading.Lock
) -> None:
    while True:
        head, blobs = batches.get()
        begun = time.perf_counter()
        replies, bodies = answer(handler, head["items"], blobs)
        answered = {"id": head["id"], "replies": replies, "ms": (time.perf_counter() - begun) * 1000}
        with writing:
            wire.send(connection, answered, bodies)


def answer(
    handler: Handler, items: list[dict[str, Any]], blobs: list[bytes]
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """(status, content type and headers; body) of each request.

    What the handler does not expect fails the batch; its requests are then asked one by one, so that only the one that
    cannot be answered gets the 500.
    """
    rest = iter(blobs)
    data = [{field: _value(kind, next(rest)) for field, kind in item["fields"]} for item in items]
    headers = [item["headers"] for item in items]
    try:
        return _handle(handler, data, headers)
    except Exception:
        traceback.print_exc()
        if len(items) == 1:
            return _failed()
    replies, bodies = [], []
    for one, header in zip(data, headers, strict=True):
        try:
            reply, body = _handle(handler, [one], [header])
        except Exception:
            traceback.print_exc()
            reply, body = _failed()
        replies += reply
        bodies += body
    return replies, bodies


def _handle(
    handler: Handler, data: list[dict[str, Any]], headers: list[dict[str, str]]
) -> tuple[list[dict[str, Any]], list[bytes]]:
    context = BatchContext(headers)
    bodies = [bytes(body) for body in handler.handle(data, context)]
    if len(bodies) != len(data):  # else nobody knows whose answer is which
        raise ValueError(f"the handler gave {len(bodies)} answers to {len(data)} requests")
    return [vars(reply) for reply in context.replies], bodies


def _failed() -> tuple[list[dict[str, Any]], list[bytes]]:
    error = sys.exc_info()[0]
    words = f"the model failed on this picture ({error.__name__ if error else 'unknown'}); the server's log has more"
    body = json.dumps({"code": 500, "type": "InternalServerException", "message": words}).encode()
    return [vars(Reply(status=500))], [body]


def _value(content_type: str, data: bytes) -> Any:
    """As TorchServe: JSON is decoded where it can be, everything else stays bytes."""
    if JSON_TYPE.fullmatch(content_type):
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return data
    return data


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
