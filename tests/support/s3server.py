"""A real S3 server for tests: Versity's gateway, which keeps objects as files of a folder, built from its Go module.

It checks signatures, knows multipart uploads and answers S3's errors. Amazon's own client for Python, and servers that
are built on it, want another version of python-dateutil than Kubernetes' client does, so they are no choice here.
"""

from __future__ import annotations

import functools
import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from support import gomodules
from support.guarded import Guarded
from trainserve.errors import EnvironmentProblem
from trainserve.machine.ports import LOOPBACK, Reserved

MODULE, VERSION = "github.com/versity/versitygw", "v1.8.0"
ACCESS, SECRET = "test-access", "test-secret"
READY_S = 20.0


class S3:
    """A running server. `env` is what a client of it needs."""

    def __init__(self, folder: Path, port: int, host: str) -> None:
        self.folder = folder
        self.port = port
        self.env = environment(port, host)

    def bucket(self, name: str) -> str:
        """A new, empty bucket; its URL."""
        (self.folder / name).mkdir()
        return f"s3://{name}"


def environment(port: int, host: str = LOOPBACK) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }


@contextmanager
def serving(folder: Path, host: str = LOOPBACK) -> Iterator[S3]:
    """A server whose objects and log lie in `folder`, at an address of this machine.

    Raises EnvironmentProblem where it cannot be built or started.
    """
    program = gomodules.program(MODULE, VERSION, "versitygw")
    root = folder / "objects"
    root.mkdir(parents=True)
    ports = Reserved()
    port = ports.port("s3")
    arguments = [program, "--access", ACCESS, "--secret", SECRET, "--port", f"{host}:{port}", "posix", root]
    process = Guarded(arguments, folder / "s3.log")
    try:
        give_up = time.monotonic() + READY_S
        while not _answers(host, port):
            if not process.alive() or time.monotonic() > give_up:
                raise EnvironmentProblem(f"the S3 server does not start:\n{process.tail()}")
            time.sleep(0.05)
        yield S3(root, port, host)
    finally:
        process.stop()
        ports.release_all()


def _answers(host: str, port: int) -> bool:
    try:
        urlopen(f"http://{host}:{port}/", timeout=2).close()
    except HTTPError as error:
        error.close()
        return True  # it asks for credentials
    except OSError:
        return False
    return True


@contextmanager
def faulty(port: int, every: int = 3) -> Iterator[int]:
    """A way to the server that answers each n-th request with 503 by itself; its port."""
    count = _Count(every)
    server = ThreadingHTTPServer((LOOPBACK, 0), functools.partial(_Way, port, count))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert count.refused, "nothing was refused, so nothing was shown"


class _Count:
    def __init__(self, every: int) -> None:
        self._every, self._seen, self.refused = every, 0, 0
        self._lock = threading.Lock()

    def is_bad(self) -> bool:
        with self._lock:
            self._seen += 1
            bad = self._seen % self._every == 0
            self.refused += bad
            return bad


class _Way(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, port: int, count: _Count, *args: object) -> None:
        self._port, self._count = port, count
        super().__init__(*args)  # type: ignore[arg-type]

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._count.is_bad():
            self._answer(503, [], b"")
            return
        with closing(http.client.HTTPConnection(LOOPBACK, self._port, timeout=30)) as server:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # the host too: the signature is about it
                server.putheader(name, value)
            server.endheaders(body)
            answer = server.getresponse()
            self._answer(answer.status, answer.getheaders(), answer.read())

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length")
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""
