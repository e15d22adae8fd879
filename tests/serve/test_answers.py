from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.serve import client as rest
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


@pytest.mark.parametrize("data", [b"", b"tensor(3)", b"[]", b"{}", b'{"predictions": [{}]}', b"\xff", b"[" * 100_000])
def test_an_answer_of_something_else(data: bytes) -> None:
    with pytest.raises(EnvironmentProblem, match="is not one of this platform's"):
        parse_answer(data, label="a.png", model="m")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("a", -1, 0.5)],
        [("a", 0, 0.5), ("a", 1, 0.5)],
        [("a", 0, 0.5), ("b", 0, 0.5)],
        [("a", 0, 1.5)],
        [("a", 0, -0.5)],
        [("a", 0, float("inf"))],
        [("a", float("inf"), 0.5)],
    ],
)
def test_classes_that_no_model_of_ours_answers(rows: list[tuple[str, float, float]]) -> None:
    values = [{"class": name, "index": index, "probability": share} for name, index, share in rows]
    with pytest.raises(EnvironmentProblem, match="is not one of this platform's"):
        parse_answer(json.dumps({**GOOD, "predictions": values}).encode(), label="a.png", model="m")


def test_an_answer_that_is_no_number_is_null_in_json() -> None:
    """NaN is not JSON: others could not read what `platform predict -o json` prints."""
    values = [{"class": "a", "index": 0, "probability": float("nan")}]
    found = parse_answer(json.dumps({**GOOD, "predictions": values}).encode(), label="a.png", model="m")
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["predictions"][0]["probability"] is None


@pytest.mark.parametrize(
    ("code", "body", "kind", "said"),
    [
        (404, b'{"message": "Model not found: m"}', UserError, "no model 'm' there: Model not found"),
        (413, b"", UserError, "a.png: too large: more than the server accepts"),
        (400, b"plain", UserError, "a.png: refused: plain"),
        (503, b'{"message": "Prediction failed"}', EnvironmentProblem, r"status 503\): Prediction failed"),
        (507, b"", EnvironmentProblem, "out of memory or its worker died"),
        (500, b"", EnvironmentProblem, "no reason given"),
        (
            500,
            b"\x1b[31mred\x07\n" + b"x" * 10_000,
            EnvironmentProblem,
            r"status 500\): \[31mred  x{490}\n",
        ),
        (302, b"", EnvironmentProblem, r"it sends elsewhere \(status 302\)"),
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


class Endless(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b" " * 1000


@pytest.mark.parametrize(
    ("limit", "said"), [(10_000, r"its answer has more than 9\.8 KiB"), (1 << 40, "did not answer within 60 s")]
)
def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch, limit: int, said: str) -> None:
    """By its size, and by the time since it began: a timeout of each read would never come."""
    clock = itertools.count(0.0, 5.0)
    monkeypatch.setattr(rest, "LARGEST_ANSWER", limit)
    monkeypatch.setattr(rest.time, "monotonic", lambda: next(clock))
    client = RestClient("http://127.0.0.1:1/")
    client._http = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless())))
    with pytest.raises(EnvironmentProblem, match=said):
        client.predict(b"x", model="m")


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
