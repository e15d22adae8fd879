"""The native engine's application with stand-ins for its models: no process, no torch."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn

from trainserve.serve.native.app import create_app
from trainserve.serve.native.batching import Job
from trainserve.serve.native.model import Unavailable
from trainserve.serve.native.process import Answer, Item


class StandIn:
    """Looks like `serve.native.model.Model`; the first class gets half of it, the next a quarter, and so on."""

    version = "1.0"
    top_k = 5
    waiting = restarts = busy = 0

    def __init__(self, name: str, classes: list[str], *, max_upload_bytes: int = 1 << 20, answers: bool = True) -> None:
        self.name, self.names, self.max_upload_bytes = name, classes, max_upload_bytes
        self.classes = len(classes)
        self.problem: str | None = None
        self.refusal: Unavailable | None = None
        self.answers = answers
        self.items: list[Item] = []
        self.dropped = 0

    @property
    def ready(self) -> bool:
        return self.problem is None

    def submit(self, item: Item) -> Job[Item, Answer]:
        if self.refusal is not None:
            raise self.refusal
        self.items.append(item)
        job: Job[Item, Answer] = Job(item, asyncio.get_running_loop().create_future())
        if self.answers:
            job.answer.set_result(self._answer(item))
        return job

    def drop(self, job: Job[Item, Answer]) -> None:
        self.dropped += not job.answer.done()
        job.answer.cancel()

    def _answer(self, item: Item) -> Answer:
        picture = next((data for name, _, data in item.fields if name in {"data", "body", "file"}), b"")
        if not picture.startswith(b"\xff\xd8"):
            body = {"code": 400, "type": "BadRequest", "message": "not a picture in a format we read"}
            return Answer(400, "application/json", {}, json.dumps(body).encode(), 1.0)
        top = min(int(item.headers.get("top", self.top_k)), self.classes)
        shares = [0.5 ** (index + 1) for index in range(min(self.classes, 6))]
        rows = [
            {"class": name, "index": index, "probability": share / sum(shares)}
            for index, (name, share) in enumerate(zip(self.names, shares, strict=False))
        ]
        body = {"model": self.name, "version": self.version, "predictions": rows[:top]}
        return Answer(200, "application/json", {}, json.dumps(body).encode(), 1.0)


@contextmanager
def serving(models: Mapping[str, Any]) -> Iterator[str]:
    """The application on a free port; gives its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        config = uvicorn.Config(
            create_app(models), http="h11", lifespan="off", log_config=None, access_log=False, timeout_keep_alive=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
