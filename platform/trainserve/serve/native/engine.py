"""Serve .mar files from this process, and leave nothing behind.

The event loop runs in a thread of its own, so that the caller's thread is free for signals. Each model has a process
(model.py); it ends when this one does, however that happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import logging.handlers
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from trainserve.errors import EnvironmentProblem, RunFailed
from trainserve.machine import cgroup
from trainserve.machine.ports import LOOPBACK, Reserved
from trainserve.package.mar import MarInfo
from trainserve.serve import servers
from trainserve.serve.archives import ModelRef, max_upload_mib, read_models, unpack
from trainserve.serve.native.app import create_app
from trainserve.serve.native.model import Model
from trainserve.serve.ports import in_use, port_number
from trainserve.serve.servers import ServerRecord

log = logging.getLogger(__name__)

ENGINE = "native"
LOG = "native.log"
UNPACKED = "unpacked"
LOG_BYTES, LOG_FILES = 10 * 1024 * 1024, 2  # beside the newest, as TorchServe's
DRAIN_S = 15.0  # for what is in flight when the server stops
KEEP_ALIVE_S = 10
CONNECTIONS = 1000  # more are answered 503 at once
BACKLOG = 512


@dataclass(frozen=True)
class Server:
    """A native server that is ready. Ends with the `with` block that made it."""

    name: str
    models: dict[str, MarInfo]
    port: int
    log: Path
    loop: _Loop

    @property
    def rest_url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def grpc_target(self) -> str:
        return ""  # it has none

    def worker_pids(self) -> list[int]:
        """Process ids of the models."""
        return [model.pid for model in self.loop.models.values() if model.pid is not None]

    def wait(self) -> None:
        """Block until the server ends by itself, which it should not: raises RunFailed then."""
        self.loop.join()
        raise RunFailed(f"the server ended: {self.loop.why_it_ended()}", hint=f"log: {self.log}")


@contextmanager
def running(
    models: Sequence[ModelRef],
    *,
    name: str | None = None,
    port: int | None = None,
    on_start: Callable[[], object] | None = None,
) -> Iterator[Server]:
    """The native engine with these models, ready; stopped, with all its processes, when the block ends.

    `name` is what `predict NAME` finds it by (default: the first model's). The port is a free one unless given. Until
    every model is ready /ping says 503. Raises UserError for a wrong archive or a name that is taken,
    EnvironmentProblem for a port in use or a model that does not load. `on_start` is called once everything that was
    asked for is checked, before the models are loaded.
    """
    archives = read_models(models)
    with servers.claim(next(iter(archives)) if name is None else name) as record_path:
        place = record_path.parent
        with _listening(port) as listener, _logging_to(place / LOG), _unpacked(archives, place / UNPACKED) as folders:
            server = _Loop(archives, folders, listener)
            number = int(listener.getsockname()[1])
            if on_start is not None:
                on_start()
            try:
                server.start()
                server.ready.result()
                running_server = Server(place.name, archives, number, place / LOG, server)
                servers.write_record(record_path, _record(running_server))
                yield running_server
            finally:
                server.stop()


class _Loop:
    """The event loop with uvicorn and the models, in a thread."""

    def __init__(self, archives: dict[str, MarInfo], folders: dict[str, Path], listener: socket.socket) -> None:
        self._begun = False
        self._thread = threading.Thread(target=self._run, name="trainserve-native", daemon=True)
        self.ready: Future[None] = Future()
        self.models: dict[str, Model] = {}
        self._archives, self._folders, self._listener = archives, folders, listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stop_asked = threading.Event()  # also before the loop is there
        # Thread.join of Python 3.11, interrupted by Ctrl-C, takes the thread for ended ever after.
        self._ended = threading.Event()
        self._why = "it was stopped"

    def why_it_ended(self) -> str:
        """In words."""
        return self._why

    def start(self) -> None:
        """Start the thread; `ready` is done when every model answers, or has the error."""
        self._thread.start()
        self._begun = True

    def join(self) -> None:
        """Wait until it has ended."""
        self._ended.wait()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # tells the thread that waits; it raises it again
            self._why = f"{type(error).__name__}: {error}"
            log.exception("the engine failed")
            if not self.ready.done():
                self.ready.set_exception(error)
        finally:
            if not self.ready.done():  # whoever waits for it would wait for ever
                self.ready.set_exception(RunFailed("the server ended before its models were ready"))
            self._ended.set()

    def stop(self) -> None:
        """Answer what is in flight, end every process; returns when nothing is left. Within DRAIN_S and a few seconds.

        Interrupted (a second Ctrl-C) it leaves the rest to the end of this process, which ends its models too.
        """
        self._stop_asked.set()
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just closed
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._begun:
            self._ended.wait()
            self._thread.join()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._stop_asked.is_set():
            self._stop.set()
        self.models = {name: Model(name, mar, self._folders[name]) for name, mar in self._archives.items()}
        config = uvicorn.Config(
            create_app(self.models),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(DRAIN_S) + 5,  # by then every request has been answered below
            limit_concurrency=CONNECTIONS,
            backlog=BACKLOG,
        )
        web = uvicorn.Server(config)
        serving = asyncio.create_task(web.serve(sockets=[self._listener]))
        stopping = asyncio.create_task(self._stop.wait())
        starting = asyncio.create_task(self._start_models())
        try:
            await asyncio.wait({starting, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                self.ready.set_result(None)
                hopeless = asyncio.create_task(self._all_given_up())
                await asyncio.wait({stopping, serving, hopeless}, return_when=asyncio.FIRST_COMPLETED)
                hopeless.cancel()
        finally:
            starting.cancel()
            stopping.cancel()
            web.should_exit = True
            await asyncio.wait({serving}, timeout=DRAIN_S)
            for request in list(web.server_state.tasks):
                request.cancel()  # answers that the server is stopping
            await asyncio.gather(starting, return_exceptions=True)
            await asyncio.gather(*(model.stop() for model in self.models.values()))
            await asyncio.gather(serving, stopping, return_exceptions=True)

    async def _start_models(self) -> None:
        """As many at a time as there are cores: importing torch is work."""
        turns = asyncio.Semaphore(cgroup.cores())

        async def start(model: Model) -> None:
            async with turns:
                await model.start()

        try:
            async with asyncio.TaskGroup() as group:
                for model in self.models.values():
                    group.create_task(start(model))
        except ExceptionGroup as group_of_errors:
            raise group_of_errors.exceptions[0] from None  # the first that failed ended the others

    async def _all_given_up(self) -> None:
        for model in self.models.values():
            await model.given_up.wait()
        self._why = "; ".join(f"model {model.name}: {model.problem}" for model in self.models.values())


@contextmanager
def _listening(port: int | None) -> Iterator[socket.socket]:
    """A socket on the port, or on a free one. Raises UserError for no port, EnvironmentProblem for a taken one."""
    reserved = Reserved()
    chosen = reserved.port("rest") if port is None else port_number("--port", port)
    try:
        # asyncio sets TCP_NODELAY only where the protocol is named; without it each answer waits 40 ms for an ACK.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((LOOPBACK, chosen))
                listener.listen(BACKLOG)
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                raise in_use("--port", chosen, "is in use" if taken else f"cannot be used: {error.strerror}") from None
            yield listener
    finally:
        reserved.release_all()


@contextmanager
def _unpacked(archives: dict[str, MarInfo], place: Path) -> Iterator[dict[str, Path]]:
    """A private folder for each model, gone afterwards. The caller holds the server's lock: `place` is its alone."""
    shutil.rmtree(place, ignore_errors=True)  # of a server that was killed
    try:
        folders = {name: place / name for name in archives}
        try:
            for name, mar in archives.items():
                unpack(mar, folders[name])
        except OSError as error:
            raise EnvironmentProblem(
                f"{error.filename or place}: {error.strerror or error}", hint="is there room on the disk?"
            ) from error
        yield folders
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _logging_to(file: Path) -> Iterator[None]:
    """What this package and uvicorn log goes to `file`, of bounded size, and nowhere else."""
    for leftover in file.parent.glob(f"{file.name}*"):
        leftover.unlink()
    handler = logging.handlers.RotatingFileHandler(file, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    loggers = [logging.getLogger(name) for name in (__package__, "uvicorn")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            if not logger.handlers:
                logger.setLevel(level)
                logger.propagate = propagate
        handler.close()


def _record(server: Server) -> ServerRecord:
    return ServerRecord(
        name=server.name,
        pid=os.getpid(),
        rest_url=server.rest_url,
        grpc_target="",
        management_url="",
        models={served: mar.version for served, mar in server.models.items()},
        max_upload_mib=max_upload_mib(server.models),
        log=str(server.log),
        engine=ENGINE,
    )
