"""`platform operator check`: what it asks, and its words for each thing that is not well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from support.here import Here
from trainserve.kube import names
from trainserve.machine.ports import LOOPBACK
from trainserve.operator.check import sample_job
from trainserve.spec import pytorchjob


class _Both(BaseHTTPRequestHandler):
    """An operator and an API server in one: GET is /readyz, POST creates."""

    ready: ClassVar[tuple[int, str]] = (200, "ok")
    created: ClassVar[tuple[int, dict[str, Any]]] = (201, {})
    asked: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def do_GET(self) -> None:
        self._answer(self.ready[0], self.ready[1].encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, body))
        self._answer(self.created[0], json.dumps(self.created[1]).encode())

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(ready: tuple[int, str], created: tuple[int, dict[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    asked: list[Any] = []
    handler = type("Handler", (_Both,), {"ready": ready, "created": created, "asked": asked})
    server = ThreadingHTTPServer((LOOPBACK, 0), handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kubeconfig(folder: Path, url: str) -> Path:
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "a", "cluster": {"server": url}}],
        "users": [{"name": "a", "user": {"token": "secret"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    path.write_text(json.dumps(document))
    return path


def refusal(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    return code, {**status, "reason": reason, "message": message}


GOOD = (201, sample_job("team"))


def test_a_dry_run_and_a_sentence_each(here: Here, tmp_path: Path) -> None:
    with served((200, "ok"), GOOD) as (url, asked):
        said = here(
            "operator",
            "check",
            "--url",
            f"{url}/readyz",
            "--kubeconfig",
            kubeconfig(tmp_path, url),
            "--namespace",
            "team",
        )
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        f"the operator at {url}/readyz is ready",
        "the API server takes PyTorchJobs in namespace team (a dry run: none was made)",
    ]
    ((path, body),) = asked
    assert path.startswith("/apis/kubeflow.org/v1/namespaces/team/pytorchjobs?")
    assert "dryRun=All" in path
    assert "fieldValidation=Strict" in path
    assert body == sample_job("team")


def test_the_job_is_whole() -> None:
    job = pytorchjob.parse(pytorchjob.default(sample_job("team")))
    assert job.metadata["name"] == names.CHECKED_JOB


@pytest.mark.parametrize(
    ("ready", "created", "says"),
    [
        ((503, "not in the cache yet: pods"), GOOD, ["/readyz answers 503: not in the cache yet: pods", "its log"]),
        ((200, "ok"), refusal(404, "NotFound", "no such kind"), ["no such kind", "install the kind"]),
        ((200, "ok"), refusal(403, "Forbidden", "not you"), ["says no: not you", "the verb create on pytorchjobs"]),
        ((200, "ok"), refusal(400, "BadRequest", 'unknown field "spec.x"'), ["unknown field", "older"]),
    ],
)
def test_what_is_not_well_ends_with_3_and_a_hint(
    here: Here, tmp_path: Path, ready: tuple[int, str], created: tuple[int, dict[str, Any]], says: list[str]
) -> None:
    with served(ready, created) as (url, _):
        said = here("operator", "check", "--url", url, "--kubeconfig", kubeconfig(tmp_path, url))
    assert said.code == 3
    assert all(words in said.err for words in [*says, "hint: "]), said.err


def test_nobody_there(here: Here, tmp_path: Path) -> None:
    with served((200, "ok"), GOOD) as (url, _):
        pass
    said = here("operator", "check", "--url", url)
    assert said.code == 3
    assert "does not answer" in said.err
    said = here("operator", "check", "--kubeconfig", kubeconfig(tmp_path, url))
    assert said.code == 3
    assert "does not answer" in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--namespace", "a,b"], "--namespace a,b: a job is in one"),
        (["--namespace", "Team"], "--namespace 'Team': a namespace's name has"),
        (["--url", "nonsense:8080"], "--url nonsense:8080: expected http://HOST:PORT"),
    ],
)
def test_a_wrong_option(here: Here, words: list[str], says: str) -> None:
    said = here("operator", "check", *words)
    assert said.code == 2
    assert says in said.err
