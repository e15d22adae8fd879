"""`platform serve` and `platform predict`, as typed in two terminals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from support import bundles
from support.command import command, environment, platform
from support.live import mentions, processes, until
from trainserve.client.evaluate import evaluate
from trainserve.client.listener import Listener
from trainserve.evaluate.measures import measure

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Served:
    """A `platform serve` that is ready."""

    def __init__(self, home: Path, process: subprocess.Popen[str], ready: dict[str, str]) -> None:
        self.home, self.process, self.ready = home, process, ready


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serving")
    archive = bundles.mar(folder, name="digits", workers=1)
    with serving(folder, archive) as server:
        yield server


@contextmanager
def serving(folder: Path, *words: object) -> Iterator[Served]:
    """`platform serve WORDS`, from ready to Ctrl-C."""
    process = subprocess.Popen(
        command("serve", *words, "-o", "json"),
        env=environment(folder),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line == "}\n":
            break
    try:
        yield Served(folder, process, json.loads("".join(lines)))
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "a picture.png"
    file.write_bytes(bundles.picture(1))
    return file


@pytest.mark.parametrize("protocol", [[], ["--grpc"]])
def test_predict_by_name(served: Served, picture: Path, protocol: list[str]) -> None:
    done = platform("predict", "digits", picture, "--top", 2, "-o", "json", *protocol, home=served.home)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    assert answer["model"] == "digits"
    assert answer["version"] == "1.0"
    assert len(answer["predictions"]) == 2
    assert answer["predictions"][0]["probability"] >= answer["predictions"][1]["probability"]


def test_predict_by_url_and_a_folder(served: Served, tmp_path: Path) -> None:
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(bundles.picture(seed))
    (tmp_path / "notes.txt").write_text("no picture")
    done = platform("predict", served.ready["url"], tmp_path, "--model", "digits", home=served.home)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("/")] == [
        str(tmp_path / f"{seed}.png") for seed in range(3)
    ]


def test_what_is_no_picture_is_refused_and_the_others_are_answered(
    served: Served, picture: Path, tmp_path: Path
) -> None:
    text = tmp_path / "page.jpg"
    text.write_text("<html>")
    done = platform("predict", "digits", text, picture, "-o", "json", home=served.home)
    assert done.returncode == 2
    assert "page.jpg: refused: " in done.stderr
    assert "1 of 2 pictures were refused" in done.stderr
    refused, answered = json.loads(done.stdout)
    assert "error" in refused
    assert "predictions" in answered


def test_wrong_names_get_the_nearest_one(served: Served, picture: Path) -> None:
    done = platform("predict", "digts", picture, home=served.home)
    assert done.returncode == 2
    assert "did you mean 'digits'?" in done.stderr
    done = platform("predict", "digits", picture, "--model", "flowers", home=served.home)
    assert done.returncode == 2
    assert "no model 'flowers'; it serves digits" in done.stderr


def test_evaluating_the_server_gives_the_numbers_of_its_archive_and_bundle(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINSERVE_HOME", str(served.home))
    for number in range(12):
        file = tmp_path / ("1", "10", "2")[number % 3] / f"{number:02d}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bundles.picture(number))
    (tmp_path / "2" / "page.jpg").write_text("<html>")
    url = f"{served.ready['url']}/predictions/digits"
    first, *others = (
        evaluate(model, tmp_path, Listener(), skip_bad=True)
        for model in (served.home / "bundle", served.home / "digits.mar", "digits", url)
    )
    for other in others:
        assert other.pictures == first.pictures
        assert [picture for picture, _ in other.skipped] == ["2/page.jpg"]
        assert other.predicted.tolist() == first.predicted.tolist()
        assert abs(other.probabilities - first.probabilities).max() < 1e-5
        assert measure(other).top5 == measure(first).top5


def test_list_shows_the_server(served: Served) -> None:
    found = json.loads(platform("list", "-o", "json", home=served.home).stdout)["servers"]
    assert [(server["name"], server["models"]) for server in found] == [("digits", {"digits": "1.0"})]


def test_no_server_there(picture: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = platform("predict", url, picture, "--model", "digits")
    assert done.returncode == 3
    assert f"no server answers at {url}" in done.stderr


def test_a_port_in_use_is_named(served: Served, tmp_path: Path) -> None:
    port = served.ready["url"].rpartition(":")[2]
    archive = bundles.mar(tmp_path, name="other", workers=1)
    done = platform("serve", archive, "--port", port, home=tmp_path)
    assert done.returncode == 3
    assert f"--port {port}" in done.stderr
    assert "in use" in done.stderr


def test_something_else_called_mar_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.mar"
    file.write_text("not a zip")
    done = platform("serve", file, home=tmp_path)
    assert done.returncode == 2
    assert "x.mar" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("number", "engine"),
    [
        (signal.SIGINT, "torchserve"),
        (signal.SIGTERM, "torchserve"),
        (signal.SIGINT, "native"),
        (signal.SIGTERM, "native"),
    ],
)
def test_a_signal_stops_it_with_no_process_left(tmp_path: Path, number: signal.Signals, engine: str) -> None:
    archive = bundles.mar(tmp_path, name="brief", workers=1)
    process = subprocess.Popen(
        command("serve", archive, "--engine", engine),
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "/predictions/brief" in process.stdout.readline()
    assert [pid for pid in processes() if pid != process.pid and mentions(pid, str(tmp_path))] != []
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err.endswith("stopped\n")
    assert [pid for pid in processes() if mentions(pid, str(tmp_path))] == []


def test_the_native_engine_is_found_asked_listed_and_says_that_it_has_no_grpc(tmp_path: Path, picture: Path) -> None:
    archive = bundles.mar(tmp_path, name="plain", workers=1)
    with serving(tmp_path, archive, "--engine", "native", "--name", "second") as server:
        assert (server.ready["engine"], server.ready["grpc"]) == ("native", "")
        done = platform("predict", "plain", picture, "--top", 1, "-o", "json", home=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)[0]["predictions"]) == 1
        done = platform("predict", "second", picture, "--grpc", home=tmp_path)
        assert done.returncode == 2
        assert "the native engine answers REST only" in done.stderr
        lines = [line.split() for line in platform("list", home=tmp_path).stdout.splitlines()]
        assert lines[-2] == ["SERVER", "ENGINE", "MODELS", "REST", "GRPC"]
        assert lines[-1] == ["second", "native", "plain", "1.0", server.ready["url"], "-"]

    done = platform("serve", archive, "--engine", "native", "--grpc-port", 9000, home=tmp_path)
    assert done.returncode == 2
    assert "--grpc-port 9000: the native engine has no such port" in done.stderr


def test_a_signal_lets_the_native_engine_answer_what_is_in_flight(tmp_path: Path) -> None:
    archive = bundles.mar(tmp_path, name="slow", workers=1, batchSize=4, maxBatchDelayMs=1500)
    with serving(tmp_path, archive, "--engine", "native") as server, ThreadPoolExecutor(1) as pool:
        url = server.ready["url"]
        late = pool.submit(httpx.post, f"{url}/predictions/slow", content=bundles.picture(0), timeout=60)
        until(lambda: 'waiting_requests{model="slow"} 1.0' in httpx.get(f"{url}/metrics").text, "it waits", 10)
        server.process.send_signal(signal.SIGTERM)
        assert late.result().status_code == 200
        assert server.process.wait(30) == 0
