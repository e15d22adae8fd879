from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import pytest

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.serve.answers import Prediction, check_size, parse_answer, predict_files, refusal
from trainserve.serve.client import RestClient

GOOD = {"model": "m", "version": "1.10", "predictions": [{"class": "2", "index": 1, "probability": 0.75}]}
PREDICTION = parse_answer(json.dumps(GOOD).encode(), label="a.png", model="m")


def test_an_answer_survives_the_round_trip() -> None:
    assert PREDICTION.to_dict() == GOOD


def test_an_error_in_a_successful_answer_is_an_error() -> None:
    hidden = b'{"code": 400, "type": "BadRequest", "message": "empty file"}'
    with pytest.raises(UserError, match=r"a.png: refused: empty file"):
        parse_answer(hidden, label="a.png", model="m")


@pytest.mark.parametrize("data", [b"", b"tensor(3)", b"[]", b"{}", b'{"predictions": [{}]}', b"\xff"])
def test_an_answer_of_something_else(data: bytes) -> None:
    with pytest.raises(EnvironmentProblem, match="is not one of this platform's"):
        parse_answer(data, label="a.png", model="m")


@pytest.mark.parametrize(
    ("code", "body", "kind", "said"),
    [
        (404, b'{"message": "Model not found: m"}', UserError, "no model 'm' there: Model not found"),
        (413, b"", UserError, "a.png: too large: more than the server accepts"),
        (400, b"plain", UserError, "a.png: refused: plain"),
        (503, b'{"message": "Prediction failed"}', EnvironmentProblem, r"status 503\): Prediction failed"),
        (507, b"", EnvironmentProblem, "out of memory or its worker died"),
        (500, b"", EnvironmentProblem, "no reason given"),
    ],
)
def test_refusals(code: int, body: bytes, kind: type[Exception], said: str) -> None:
    error = refusal(code, body, label="a.png", model="m")
    assert type(error) is kind
    with pytest.raises(kind, match=said):
        raise error


def test_the_limit_is_checked_before_sending() -> None:
    check_size(bytes(1024 * 1024), "a.png", 1)
    check_size(bytes(1024 * 1024 + 1), "a.png", None)
    with pytest.raises(UserError, match=r"a.png: too large: 1,048,577 bytes is more than the server's limit of 1 MiB"):
        check_size(bytes(1024 * 1024 + 1), "a.png", 1)


def test_order_is_kept_and_a_bad_picture_stops_nobody(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(20)]
    for path in paths:
        path.write_bytes(path.name.encode())
    paths[3].unlink()

    def predict(data: bytes, label: str) -> Prediction:
        if data == b"5.png":
            raise UserError(f"{label}: refused")
        return Prediction(data.decode(), "1", ())

    answers = list(predict_files(predict, paths, concurrency=4))
    assert [answer.picture for answer in answers] == paths
    assert [index for index, answer in enumerate(answers) if answer.error] == [3, 5]
    assert all(answer.prediction.model == answer.picture.name for answer in answers if answer.prediction)


def test_a_server_that_is_gone_stops_everything(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(100)]
    for path in paths:
        path.touch()
    asked = []

    def predict(data: bytes, label: str) -> Prediction:
        asked.append(label)
        raise EnvironmentProblem("gone")

    with pytest.raises(EnvironmentProblem, match="gone"):
        list(predict_files(predict, paths, concurrency=2))
    assert len(asked) < 100


def test_loopback_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    with RestClient("http://127.0.0.1:1") as client, pytest.raises(EnvironmentProblem, match="no server answers"):
        client.predict(b"x", model="m")


def test_request_carries_top_as_a_header_and_quotes_the_model() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=GOOD)

    client = RestClient("http://127.0.0.1:1/")
    client._http = httpx.Client(transport=httpx.MockTransport(answer))
    assert client.predict(b"x", model="a/b", version="1.10", top=3) == PREDICTION
    assert str(seen[0].url) == "http://127.0.0.1:1/predictions/a%2Fb/1.10"
    assert seen[0].headers["top"] == "3"


def test_a_pipe_and_a_file_beyond_every_limit_are_refused_without_being_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(3 << 30)  # of holes
    files = [tmp_path / "pipe.png", tmp_path, tmp_path / "huge.png"]
    said = [answer.error.message for answer in predict_files(_never, files) if answer.error]
    assert "pipe or device" in said[0]
    assert "folder" in said[1]
    assert "too large: 3,221,225,472 bytes" in said[2]


def _never(_data: bytes, _label: str) -> Prediction:
    raise AssertionError("nothing is sent")
