"""The native engine for real: processes with torch, uvicorn on loopback."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
import torch

from support import bundles, pictures
from support.live import until
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.serve.archives import ModelRef
from trainserve.serve.client import RestClient
from trainserve.serve.native import engine
from trainserve.serve.native.engine import Server
from trainserve.serve.servers import find_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def mars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three models with classes of their own; `digits` takes batches."""
    folder = tmp_path_factory.mktemp("mars")
    torch.set_num_threads(1)
    return {
        "digits": bundles.mar(
            folder / "a", "digits", ("1", "10", "2"), version="1.10", batchSize=8, maxBatchDelayMs=20
        ),
        "pair": bundles.mar(folder / "b", "pair", ("cat", "dog"), seed=1, workers=1, maxUploadMib=1, maxPixels=250_000),
        "many": bundles.mar(folder / "c", "many", tuple(f"class {index}" for index in range(1000)), workers=1),
    }


@pytest.fixture(scope="module")
def server(home: Path, mars: dict[str, Path]) -> Iterator[Server]:
    with engine.running([ModelRef(path) for path in mars.values()], name="three") as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.rest_url, timeout=60) as client:
        yield client


def test_answers_are_the_eager_logits(http: httpx.Client, server: Server) -> None:
    mar = server.models["digits"]
    for golden in mar.golden:
        exponents = [math.exp(logit) for logit in golden.logits]
        answer = http.post("/predict?model=digits&top=3", files={"file": mar.golden_picture(golden)}).json()
        assert (answer["model"], answer["version"]) == ("digits", "1.10")
        assert answer["predictions"][0]["class"] == golden.class_
        for item in answer["predictions"]:
            assert item["probability"] == pytest.approx(exponents[item["index"]] / sum(exponents), abs=1e-4)


def test_all_are_healthy_and_listed(http: httpx.Client) -> None:
    answer = http.get("/ping")
    assert (answer.status_code, answer.json()["status"]) == (200, "Healthy")
    listed = {item["name"]: (item["version"], item["classes"]) for item in http.get("/models").json()["models"]}
    assert listed == {"digits": ("1.10", 3), "pair": ("1.0", 2), "many": ("1.0", 1000)}


def test_every_way_to_send_a_picture(http: httpx.Client) -> None:
    import base64

    picture, url = bundles.picture(3), "/predictions/digits"
    raw = http.post(url, content=picture, headers={"Content-Type": "image/png"}).json()
    assert len(raw["predictions"]) == 3
    text = base64.b64encode(picture).decode()
    others = [
        http.put(url, content=picture),
        http.post(f"{url}/1.10", content=picture, headers={"Content-Type": "application/octet-stream"}),
        http.post(url, files={"data": picture}),
        http.post(url, files={"file": ("a b.png", picture, "image/png")}),
        http.post(url, json={"data": text}),
        http.post("/predict?model=digits", files={"file": picture}),
    ]
    assert [answer.json() for answer in others] == [raw] * len(others)
    best = {**raw, "predictions": raw["predictions"][:1]}
    ones = [
        http.post(f"{url}?top=1", content=picture),
        http.post(url, content=picture, headers={"top": "1"}),
        http.post(url, files={"data": picture}, data={"top": "1"}),
        http.post(url, json={"data": text, "top": 1}),
        http.post(f"{url}?top=1", content=picture, headers={"top": "2"}),
    ]
    assert [answer.json() for answer in ones] == [best] * len(ones)


def test_srv_01_two_classes_native(http: httpx.Client) -> None:
    for top, count in ((None, 2), (1, 1), (100, 2)):
        query = {} if top is None else {"top": top}
        found = http.post("/predict", params={"model": "pair", **query}, files={"file": bundles.picture(0)}).json()
        assert len(found["predictions"]) == count
        assert {item["class"] for item in found["predictions"]} <= {"cat", "dog"}
        if count == 2:
            assert sum(item["probability"] for item in found["predictions"]) == pytest.approx(1)
    for bad in ("0", "-1", "x", "1.5", "9" * 30):
        for way in ({"params": {"top": bad}}, {"headers": {"top": bad}}):
            refused = http.post("/predictions/pair", content=bundles.picture(0), **way)
            assert (refused.status_code, refused.json()["code"]) == (400, 400)
            assert "top must be a whole number from 1" in refused.json()["message"]


def test_srv_02_no_picture_twenty_times_then_a_good_one_native(server: Server) -> None:
    before = server.worker_pids()
    whole = pictures.encode(pictures.corners(200, 200), "JPEG")
    kinds = {
        "text": (b"just some text", "not a picture"),
        "empty": (b"", "empty file"),
        "truncated": (whole[: len(whole) // 2], "truncated"),
        "html": (b"<!DOCTYPE html><html></html>", "HTML"),
        "zeros": (bytes(1_000_000), "zeros"),
    }
    with RestClient(server.rest_url) as client:
        for label, (data, reason) in kinds.items():
            for _ in range(20):
                with pytest.raises(UserError, match=rf"{label}.jpg: refused: .*{reason}"):
                    client.predict(data, model="digits", label=f"{label}.jpg")
        assert client.predict(whole, model="digits").classes
    assert server.worker_pids() == before


def test_a_bad_picture_spoils_only_its_own_answer(http: httpx.Client) -> None:
    good = bundles.picture(5)
    alone = http.post("/predictions/digits", content=good).json()["predictions"]
    bodies = [good, b"no", good, b"", good, good[:100], good, good]
    with ThreadPoolExecutor(len(bodies)) as pool:  # one batch: it takes 8, and waits 20 ms
        answers = list(pool.map(lambda body: http.post("/predictions/digits", content=body), bodies))
    assert [answer.status_code for answer in answers] == [200, 400, 200, 400, 200, 400, 200, 200]
    for answer in answers:
        if answer.status_code == 200:
            found = answer.json()["predictions"]
            assert [item["class"] for item in found] == [item["class"] for item in alone]
            assert found[0]["probability"] == pytest.approx(alone[0]["probability"], abs=1e-4)


def jpeg(size_bytes: int) -> bytes:
    """A JPEG of about so many bytes: noise does not compress."""
    from PIL import Image

    side = int((size_bytes / 0.9) ** 0.5)
    return pictures.encode(Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)), "JPEG", quality=90)


def test_srv_03_camera_sizes_and_the_limit_native(http: httpx.Client) -> None:
    camera = jpeg(12_000_000)
    assert http.post("/predictions/digits", content=camera).status_code == 200
    assert http.post("/predict?model=digits", files={"file": camera}).status_code == 200
    large = bytes(30_000_000)
    for answer in (
        http.post("/predictions/digits", content=large),
        http.post("/predictions/digits", content=(large[: 1 << 20] for _ in range(30))),  # chunked
        http.post("/predict?model=digits", files={"file": large}),
        http.post("/predictions/digits", content=bytes(16 * MIB + 1)),
        http.post("/predict?model=digits", files={"file": bytes(16 * MIB + 1)}),  # the handler's own refusal
        http.post("/predictions/pair", content=camera),  # its own setting
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/json")
        limit = "1,048,576" if answer.request.url.path.endswith("pair") else "16,777,216"
        assert f"is more than the limit of {limit}" in answer.json()["message"]
        assert "maxUploadMib" in answer.json()["message"]
    assert http.post("/predictions/pair", content=bundles.picture(0)).status_code == 200


def test_srv_07_each_model_answers_with_its_own_classes_native(http: httpx.Client) -> None:
    found = {
        name: {
            item["class"]
            for item in http.post(f"/predictions/{name}", content=bundles.picture(0)).json()["predictions"]
        }
        for name in ("digits", "pair", "many")
    }
    assert found["digits"] == {"1", "10", "2"}
    assert found["pair"] == {"cat", "dog"}
    assert len(found["many"]) == 5
    assert all(name.startswith("class ") for name in found["many"])


def test_img_04_turned_pictures_get_the_same_answer_native(http: httpx.Client) -> None:
    upright = pictures.corners(64, 48)
    straight, *turned = (
        http.post("/predictions/digits", content=pictures.oriented(upright, number)).json()["predictions"]
        for number in range(1, 9)
    )
    expected = {item["class"]: item["probability"] for item in straight}
    for answer in turned:
        assert answer[0]["class"] == straight[0]["class"]
        assert {item["class"]: item["probability"] for item in answer} == pytest.approx(expected, abs=0.02)


def test_img_05_numbered_folders_keep_their_names_native(http: httpx.Client) -> None:
    answers = [http.post("/predictions/digits", content=bundles.picture(seed)).json() for seed in range(8)]
    names = {item["index"]: item["class"] for answer in answers for item in answer["predictions"]}
    assert names == {0: "1", 1: "10", 2: "2"}


def test_img_06_a_large_picture_is_refused_with_the_setting_and_without_memory_native(
    http: httpx.Client, server: Server
) -> None:
    from PIL import Image

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        large = pictures.encode(Image.new("L", (20_000, 10_000)))
    before = sum(psutil.Process(pid).memory_info().rss for pid in server.worker_pids())
    answer = http.post("/predictions/digits", content=large)
    assert answer.status_code == 400
    assert (
        "20000 x 10000 = 200,000,000 pixels is more than the limit of 50,000,000 (maxPixels)"
        in answer.json()["message"]
    )
    medium = bundles.picture(0, size=600)
    assert "the limit of 250,000" in http.post("/predictions/pair", content=medium).json()["message"]
    assert http.post("/predictions/digits", content=medium).status_code == 200  # packaged with a higher limit
    after = sum(psutil.Process(pid).memory_info().rss for pid in server.worker_pids())
    assert after - before < 50 * MIB  # decoded it would be 200 MB


def test_unknown_models_and_versions_name_those_there_are(http: httpx.Client) -> None:
    for path, words in {
        "/predictions/digit": "did you mean 'digits'?; it serves digits, pair, many",
        "/predict?model=nope": "it serves digits, pair, many",
        "/predictions/digits/1.1": "it serves 1.10",
    }.items():
        answer = http.post(path, content=bundles.picture(0))
        assert (answer.status_code, answer.json()["code"]) == (404, 404)
        assert words in answer.json()["message"]
    unclear = http.post("/predict", content=bundles.picture(0))
    assert unclear.status_code == 400
    assert "it serves digits, pair, many" in unclear.json()["message"]
    with RestClient(str(http.base_url)) as client, pytest.raises(UserError, match="no model 'nope'"):
        client.predict(b"x", model="nope")


def test_is_found_by_name_and_has_no_grpc(server: Server) -> None:
    endpoint = find_server("three")
    assert (endpoint.rest_url, endpoint.max_upload_mib) == (server.rest_url, 16)
    assert endpoint.models == ("digits", "pair", "many")
    with pytest.raises(UserError, match="the native engine answers REST only"):
        endpoint.need_grpc()


def test_listens_on_loopback_only_and_models_have_one_thread(server: Server) -> None:
    mine = psutil.Process()
    listening = {item.laddr for item in mine.net_connections(kind="tcp") if item.status == psutil.CONN_LISTEN}
    assert [address.ip for address in listening if address.port == server.port] == ["127.0.0.1"]
    for pid in server.worker_pids():
        assert psutil.Process(pid).environ()["OMP_NUM_THREADS"] == "1"
        assert not psutil.Process(pid).net_connections(kind="tcp")


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    with engine._listening(None) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle's algorithm on


def test_a_taken_name_and_a_taken_port_are_told(server: Server, mars: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="a server named 'three' runs already"):
        engine.running([ModelRef(mars["pair"])], name="three").__enter__()
    with pytest.raises(EnvironmentProblem, match=rf"--port {server.port}: port .* is in use"):
        engine.running([ModelRef(mars["pair"])], port=server.port).__enter__()
    with pytest.raises(UserError, match="--port 70000: a port is a number"):
        engine.running([ModelRef(mars["pair"])], port=70_000).__enter__()


def test_a_model_that_hangs_or_dies_answers_503_and_comes_back(
    http: httpx.Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = server.loop.models["pair"]

    def ask() -> httpx.Response:
        return http.post("/predictions/pair", content=bundles.picture(0))

    def back() -> bool:
        return http.get("/ping").status_code == 200

    before = pair.pid
    assert before is not None
    os.kill(before, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask)
        until(lambda: pair.busy == 1, "the picture is with the process", 10)
        os.kill(before, signal.SIGKILL)
        answer = waiting.result()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "model pair could not answer: its process was ended by SIGKILL" in answer.json()["message"]
    assert http.get("/ping").status_code == 503
    assert "is being started again" in ask().json()["message"]
    assert http.post("/predictions/digits", content=bundles.picture(0)).status_code == 200  # the others go on
    until(back, "it is back", 60)
    assert ask().status_code == 200
    assert pair.pid != before

    monkeypatch.setattr("trainserve.serve.native.model.RESPONSE_TIMEOUT_S", 0.5)
    assert pair.pid is not None
    os.kill(pair.pid, signal.SIGSTOP)
    answer = ask()
    assert answer.status_code == 503
    assert "it took longer than 0.5 s" in answer.json()["message"]
    monkeypatch.undo()
    until(back, "it is back", 60)
    assert ask().status_code == 200
    assert 'trainserve_model_restarts{model="pair"} 2.0' in http.get("/metrics").text


SERVE = """
import sys, time
from pathlib import Path
from trainserve.serve.archives import ModelRef
from trainserve.serve.native import engine
with engine.running([ModelRef(Path(sys.argv[1]))], name="child") as server:
    print(*server.worker_pids(), flush=True)
    time.sleep(120)
"""


def test_sigkill_leaves_no_process_and_no_unpacked_files(home: Path, mars: dict[str, Path]) -> None:
    child = subprocess.Popen([sys.executable, "-c", SERVE, str(mars["pair"])], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        (worker,) = [int(pid) for pid in child.stdout.readline().split()]
    child.kill()
    child.wait()
    until(lambda: not psutil.pid_exists(worker), "the model's process ends", 10)
    with pytest.raises(UserError, match="no server named 'child'"):
        find_server("child")


def test_srv_06_stop_answers_what_is_in_flight_and_a_new_start_looks_for_nothing_old_native(
    home: Path, mars: dict[str, Path], tmp_path: Path
) -> None:
    first = bundles.mar(tmp_path / "x", "first", workers=1, batchSize=4, maxBatchDelayMs=600)
    asked: list[httpx.Response] = []
    with ThreadPoolExecutor(1) as pool:
        with engine.running([ModelRef(first)], name="again") as server:
            (pid,) = server.worker_pids()
            url = f"{server.rest_url}/predictions/first"
            late = pool.submit(lambda: asked.append(httpx.post(url, content=bundles.picture(0), timeout=30)))
            until(lambda: server.loop.models["first"].waiting or server.loop.models["first"].busy, "it waits", 10)
        late.result()
    assert [answer.status_code for answer in asked] == [200]
    assert not psutil.pid_exists(pid)
    assert sorted(path.name for path in (home / "serving" / "again").iterdir()) == ["lock", "native.log"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.rest_url}/ping")
    first.unlink()
    with engine.running([ModelRef(mars["pair"], "second")], name="again") as server:
        assert [item["name"] for item in httpx.get(f"{server.rest_url}/models").json()["models"]] == ["second"]
        assert "first" not in server.log.read_text()


def test_a_model_that_drifts_is_refused_in_the_handler_s_words(mars: dict[str, Path], tmp_path: Path) -> None:
    import hashlib

    from trainserve.package import archive

    files = archive.entries(mars["pair"])
    expected = json.loads(files["golden/expected.json"])
    expected[0]["logits"][0] += 1.0
    files["golden/expected.json"] = json.dumps(expected).encode()
    description = json.loads(files["model.json"])
    description["digests"]["golden/expected.json"] = hashlib.sha256(files["golden/expected.json"]).hexdigest()
    files["model.json"] = json.dumps(description).encode()
    archive.write(files, tmp_path / "drift.mar")
    with pytest.raises(
        EnvironmentProblem, match=r"model pair does not load: ValueError: golden picture 00.png: logits"
    ):
        engine.running([ModelRef(tmp_path / "drift.mar")], name="drift").__enter__()


def test_slow_and_broken_clients_hold_nothing(server: Server, http: httpx.Client) -> None:
    """A head that promises more than comes, a body cut off, garbage: the others are answered, and nothing is kept."""
    connections = []
    for data in (
        b"POST /predictions/digits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf",
        b"POST /predictions/digits HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GARBAGE\r\n\r\n",
    ):
        connections.append(socket.create_connection(("127.0.0.1", server.port)))
        connections[-1].sendall(data)
    assert http.post("/predictions/digits", content=bundles.picture(0)).status_code == 200
    for connection in connections:
        connection.close()
    time.sleep(0.2)
    assert http.post("/predictions/digits", content=bundles.picture(0)).status_code == 200
