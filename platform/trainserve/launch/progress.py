"""What rank 0 answers while it trains in a pod: `GET /progress` (JSON) and `GET /metrics` (Prometheus).

Only where TRAINSERVE_PROGRESS_ADDRESS is set, which a pod on a cluster has and one on a laptop has not: there the
supervisor reads events.jsonl. One daemon thread that sleeps in accept(2), one connection at a time, a bounded request,
at most 50 a second: however often it is asked, training does not notice. It ends with the process.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

from trainserve.kube.names import (
    ENV_GENERATION,
    ENV_HEARTBEAT,
    ENV_PROGRESS_ADDRESS,
    ENV_RANK,
    METRICS_PATH,
    PROGRESS_PATH,
)
from trainserve.observe import heartbeat, prometheus
from trainserve.observe.events import Event
from trainserve.observe.exposition import Numbers, exposition, measured
from trainserve.observe.progress import Progress, fold

log = logging.getLogger(__name__)

REQUEST_BYTES = 4096  # of a request's head; a scrape has some hundred
REQUEST_S = 2.0  # from the connection to the end of the answer
PAUSE_S = 0.02  # after each answer
BACKLOG = 16


class ProgressServer:
    """Answers on `listener` from `start` on, with what `hear` was told."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        generation: int = 0,
        pulse: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._generation = generation
        self._progress: Progress = {}
        self._numbers: Numbers = {}
        self._device: Callable[[], Numbers] = dict
        self._stillness = None if pulse is None else Stillness(pulse, clock)
        self._closed = threading.Event()

    def hear(self, event: Event) -> None:
        """Rank 0 has written `event`. Costs some microseconds."""
        # New dicts each time: the other thread reads the old or the new.
        self._progress, self._numbers = fold(self._progress, event), measured(self._numbers, event)

    def ask_device(self, device: Callable[[], Numbers]) -> None:
        """Each scrape is told what `device` says, too. Called on the other thread: it must not wait."""
        self._device = device

    def progress(self) -> Progress:
        """The answer to GET /progress; empty until training has begun."""
        known = self._progress
        if known and self._stillness is not None:
            return {**known, "stalled": self._stillness.is_long()}
        return dict(known)

    def numbers(self) -> Numbers:
        """What GET /metrics tells: `progress` and more; the generation alone until training has begun."""
        known: dict[prometheus.Metric, float] = {prometheus.GENERATION: self._generation, **self._numbers}
        if self._numbers and self._stillness is not None:
            known[prometheus.STALLED] = self._stillness.is_long()
        return {**known, **self._device()}

    def start(self) -> None:
        threading.Thread(target=self._serve, name="progress", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which close alone does not
        except OSError:
            log.debug("the socket of %s was not listening any more", PROGRESS_PATH)
        self._listener.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._closed.is_set():
                    return
                log.warning("%s: a connection could not be taken: %s", PROGRESS_PATH, error)  # no descriptor is free
                time.sleep(1.0)
                continue
            with connection:
                try:
                    self._answer(connection)
                except OSError as error:  # too slow, or gone
                    log.debug("%s: %s", PROGRESS_PATH, error)
            time.sleep(PAUSE_S)

    def _answer(self, connection: socket.socket) -> None:
        give_up = time.monotonic() + REQUEST_S
        status, kind, body = self._reply(_head(connection, give_up))
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            head += "Allow: GET\r\n"
        connection.settimeout(max(0.001, give_up - time.monotonic()))
        connection.sendall(f"{head}Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode() + body)

    def _reply(self, head: bytes) -> tuple[HTTPStatus, str, bytes]:
        if len(head) > REQUEST_BYTES:
            return _said(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _said(HTTPStatus.BAD_REQUEST)
        method, path = words[0], words[1].partition(b"?")[0].decode("latin-1")
        if path not in {PROGRESS_PATH, METRICS_PATH}:
            return _said(HTTPStatus.NOT_FOUND)
        if method != b"GET":
            return _said(HTTPStatus.METHOD_NOT_ALLOWED)
        if path == METRICS_PATH:
            return HTTPStatus.OK, prometheus.CONTENT_TYPE, exposition(self.numbers()).encode()
        return HTTPStatus.OK, "application/json", json.dumps(self.progress(), allow_nan=False).encode()


class Stillness:
    """For how long this rank has given no sign of life, as far as was looked."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = heartbeat.Reader(path)
        self._clock = clock
        self._beats = -1
        self._since = 0.0

    def is_long(self) -> bool:
        """Whether half of the time is over after which the node's agent ends the rank."""
        beat, now = self._reader.read(), self._clock()
        if beat.beats != self._beats:
            self._beats, self._since = beat.beats, now
        return beat.limit_s > 0 and now - self._since > beat.limit_s / 2


def serve_progress(env: Mapping[str, str]) -> ProgressServer | None:
    """A started server on rank 0, where `env` asks for one; None else, and where none can be: training goes on.

    Early, before the ranks meet: who asks sees that there is somebody.
    """
    address = env.get(ENV_PROGRESS_ADDRESS)
    if not address or env.get(ENV_RANK, "0") != "0":
        return None
    try:
        listener = listen(address)
    except (OSError, ValueError) as error:
        log.warning("%s=%s: %s: nobody can ask for the progress of this run", ENV_PROGRESS_ADDRESS, address, error)
        return None
    generation = env.get(ENV_GENERATION, "")
    server = ProgressServer(
        listener,
        generation=int(generation) if generation.isdigit() else 0,
        pulse=heartbeat.of_environment(env.get(ENV_HEARTBEAT)),
    )
    server.start()
    return server


def listen(address: str) -> socket.socket:
    """`<host>:<port>`; without a host on every address, IPv4 and IPv6: in a pod it is asked from outside.

    Raises OSError, ValueError.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError("is not <host>:<port>")
    host = host.removeprefix("[").removesuffix("]")
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)


def _head(connection: socket.socket, give_up: float) -> bytes:
    """The request up to its empty line; more than REQUEST_BYTES of one that is longer. Raises TimeoutError."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) <= REQUEST_BYTES:
        left_s = give_up - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the request did not end in time")
        connection.settimeout(left_s)
        piece = connection.recv(REQUEST_BYTES + 1 - len(head))
        if not piece:
            break
        head += piece
    return head


def _said(status: HTTPStatus) -> tuple[HTTPStatus, str, bytes]:
    return status, "text/plain", f"{status.phrase}\n".encode()
