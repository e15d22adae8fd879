"""What rank 0 answers in a pod, to whoever asks however."""

from __future__ import annotations

import json
import logging
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainserve.kube import names
from trainserve.launch import progress as serving
from trainserve.launch.progress import REQUEST_BYTES, ProgressServer, Stillness, serve_progress
from trainserve.machine.ports import LOOPBACK
from trainserve.observe import prometheus
from trainserve.observe.heartbeat import Pulse, create


@pytest.fixture
def server() -> Iterator[ProgressServer]:
    started = serve_progress({names.ENV_PROGRESS_ADDRESS: f"{LOOPBACK}:0", names.ENV_GENERATION: "3"})
    assert started is not None
    yield started
    started.close()


def _port(server: ProgressServer) -> int:
    return int(server._listener.getsockname()[1])


def _raw(server: ProgressServer, request: bytes) -> bytes:
    with socket.create_connection((LOOPBACK, _port(server)), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def _get(server: ProgressServer, path: str) -> tuple[int, str, bytes]:
    with urllib.request.urlopen(f"http://{LOOPBACK}:{_port(server)}{path}", timeout=10) as answer:
        return answer.status, answer.headers["Content-Type"], answer.read()


def test_progress_as_status_holds_it(server: ProgressServer) -> None:
    assert _get(server, "/progress") == (200, "application/json", b"{}")
    server.hear({"time": 1.0, "kind": "start", "epochs": 2, "stepsPerEpoch": 5})
    server.hear({"time": 2.0, "kind": "step", "epoch": 1, "step": 2, "loss": 0.5, "lr": 0.1})
    expected = {"epoch": 1, "epochs": 2, "step": 2, "steps": 10, "loss": 0.5}
    assert json.loads(_get(server, "/progress?pretty=1")[2]) == expected


def test_metrics_for_prometheus(server: ProgressServer) -> None:
    server.hear({"time": 2.0, "kind": "step", "epoch": 1, "step": 2, "loss": 0.5, "lr": 0.1})
    status, kind, body = _get(server, "/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"\ntrainserve_training_loss 0.5\n" in body
    assert b"\ntrainserve_training_learning_rate 0.1\n" in body
    assert b"\ntrainserve_training_generation 3.0\n" in body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /progress/../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET \xff\xfe HTTP/1.1\r\n\r\n", 404),
        (b"POST /progress HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 405),
        (b"DELETE /metrics HTTP/1.0\r\n\r\n", 405),
        (b"GET /progress\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /progress HTTP/1.1\r\nX: " + b"a" * (REQUEST_BYTES - 26), 431),
    ],
)
def test_whatever_else_is_asked_is_refused(server: ProgressServer, request_: bytes, status: int) -> None:
    assert _raw(server, request_).startswith(f"HTTP/1.1 {status} ".encode())
    assert _get(server, "/progress")[0] == 200  # and the next is answered


def test_who_says_nothing_or_little_holds_up_the_others_for_a_bounded_time(
    server: ProgressServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "REQUEST_S", 0.2)
    silent = [socket.create_connection((LOOPBACK, _port(server))) for _ in range(3)]
    silent[1].sendall(b"GET /prog")
    silent[2].close()
    assert _get(server, "/progress")[0] == 200
    for connection in silent[:2]:
        connection.settimeout(10)
        assert connection.recv(100) == b""  # let go without an answer
        connection.close()


def test_many_questions_cost_a_bounded_share_of_the_time(
    server: ProgressServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(serving.time, "sleep", pauses.append)
    for _ in range(5):
        _get(server, "/progress")
    while len(pauses) < 5:
        pass  # the last pause comes after its answer
    assert pauses == [serving.PAUSE_S] * 5


def test_a_port_that_is_taken_is_a_warning_and_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken, caplog.at_level(logging.WARNING, "trainserve"):
        address = f"{LOOPBACK}:{taken.getsockname()[1]}"
        assert serve_progress({names.ENV_PROGRESS_ADDRESS: address}) is None
    assert f"TRAINSERVE_PROGRESS_ADDRESS={address}" in caplog.text
    assert "nobody can ask for the progress of this run" in caplog.text


@pytest.mark.parametrize("address", ["9464", ":", ":x", f"{LOOPBACK}:70000", "no such host:1"])
def test_an_address_that_is_none_is_one_too(address: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "trainserve"):
        assert serve_progress({names.ENV_PROGRESS_ADDRESS: address}) is None
    assert address in caplog.text


@pytest.mark.parametrize("env", [{}, {names.ENV_PROGRESS_ADDRESS: f"{LOOPBACK}:0", names.ENV_RANK: "1"}])
def test_without_an_address_and_on_other_ranks_nothing_listens(env: dict[str, str]) -> None:
    assert serve_progress(env) is None


def test_stalled_after_half_the_time_that_the_agent_waits(tmp_path: Path) -> None:
    path, now = tmp_path / "pulse", [0.0]
    create(path)
    stillness = Stillness(path, lambda: now[0])
    assert not stillness.is_long()
    now[0] = 1000.0
    assert not stillness.is_long()  # before training nobody waits for a step
    pulse = Pulse(path, stall_s=100)
    pulse.step(1)
    assert not stillness.is_long()
    now[0] += 50
    assert not stillness.is_long()
    now[0] += 1
    assert stillness.is_long()
    pulse.step(2)
    assert not stillness.is_long()


def test_progress_says_stalled_once_there_is_something_to_tell(tmp_path: Path) -> None:
    path, now = tmp_path / "pulse", [0.0]
    create(path)
    with socket.create_server((LOOPBACK, 0)) as listener:
        server = ProgressServer(listener, pulse=path, clock=lambda: now[0])
        assert server.progress() == {}
        Pulse(path, stall_s=10).step(1)
        server.hear({"time": 1.0, "kind": "step", "epoch": 1, "step": 1, "loss": 1.0})
        assert server.progress()["stalled"] is False
        now[0] = 6.0
        assert server.progress()["stalled"] is True


def test_metrics_say_stalled_and_what_the_device_says(tmp_path: Path) -> None:
    path, now = tmp_path / "pulse", [0.0]
    create(path)
    with socket.create_server((LOOPBACK, 0)) as listener:
        server = ProgressServer(listener, generation=2, pulse=path, clock=lambda: now[0])
        server.ask_device(lambda: {prometheus.GPU_USED: 5.0})
        assert server.numbers() == {prometheus.GENERATION: 2, prometheus.GPU_USED: 5}
        Pulse(path, stall_s=10).step(1)
        server.hear({"time": 1.0, "kind": "step", "epoch": 1, "step": 1, "loss": 1.0})
        assert server.numbers()[prometheus.STALLED] == 0
        now[0] = 6.0
        assert server.numbers()[prometheus.STALLED] == 1


def test_a_closed_server_is_gone(server: ProgressServer) -> None:
    port = _port(server)
    server.close()
    give_up = time.monotonic() + 10
    while True:
        try:
            urllib.request.urlopen(f"http://{LOOPBACK}:{port}/progress", timeout=1)
        except (urllib.error.URLError, ConnectionError):
            return
        assert time.monotonic() < give_up
