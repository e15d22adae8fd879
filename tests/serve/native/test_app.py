"""Routes, bodies, limits and errors, with stand-ins for the models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx
import pytest

from support.native import StandIn
from trainserve.serve.native import app as routes
from trainserve.serve.native import request as bodies
from trainserve.serve.native.app import create_app
from trainserve.serve.native.model import Unavailable

JPEG = b"\xff\xd8 a picture"


def asked(
    use: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]], *models: StandIn, host: str = "127.0.0.1:8080"
) -> Any:
    """What `use` returns, with a client of an application with these models."""
    served = {model.name: model for model in models or (StandIn("pair", ["cat", "dog"]),)}

    async def run() -> Any:
        transport = httpx.ASGITransport(create_app(served), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await use(client)

    return asyncio.run(run())


def post(path: str, *models: StandIn, **what: Any) -> httpx.Response:
    host = what.pop("host", "127.0.0.1:8080")
    answer: httpx.Response = asked(lambda client: client.post(path, **what), *models, host=host)
    return answer


def get(path: str, *models: StandIn, host: str = "127.0.0.1:8080", **what: Any) -> httpx.Response:
    answer: httpx.Response = asked(lambda client: client.get(path, **what), *models, host=host)
    return answer


def error(answer: httpx.Response, status: int) -> str:
    """The words of an error, which has the one shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"code", "type", "message"}
    assert body["code"] == status
    message: str = body["message"]
    return message


def test_a_form_is_taken_apart_and_the_times_are_told() -> None:
    model = StandIn("pair", ["cat", "dog"])
    answer = post("/predict?top=1", model, files={"file": ('a "b".jpg', JPEG, "image/jpeg")}, data={"top": "2"})
    assert [item["class"] for item in answer.json()["predictions"]] == ["cat"]
    (item,) = model.items
    assert {name: data for name, _, data in item.fields} == {"file": JPEG, "top": b"2"}
    assert item.headers["top"] == "1"
    assert item.headers["url_path"] == "/predict"
    assert [part.partition(";")[0] for part in answer.headers["server-timing"].split(", ")] == [
        "upload",
        "queue",
        "model",
        "total",
    ]


def test_a_binary_field_arrives_byte_for_byte_in_any_pieces() -> None:
    data = JPEG + bytes(range(256)) * 20 + b"\r\n--x\r\n"
    body = b'--x-y\r\nContent-Disposition: form-data; name="file"; filename="p"\r\n\r\n' + data + b"\r\n--x-y--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x-y"}
    for size in (1, 7, 4096):
        model = StandIn("pair", ["cat", "dog"])

        async def pieces(size: int = size) -> AsyncIterator[bytes]:
            for start in range(0, len(body), size):
                yield body[start : start + size]

        assert post("/predict", model, content=pieces(), headers=headers).status_code == 200
        assert model.items[0].fields == (("file", "", data),)


def part(name: str) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n1\r\n' % name.encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"--x\r\n", "ends too early"),
        (b"", "ends too early"),
        (part("file"), "ends too early"),
        (b"nonsense", "is damaged"),
        (b"--x\r\nA: b\r\n\r\nc\r\n--x--\r\n", "has no name"),
        (part("a") + part("a") + b"--x--\r\n", "more than once"),
        (b"".join(part(str(number)) for number in range(17)) + b"--x--\r\n", "more than 16 fields"),
    ],
)
def test_a_damaged_form_is_refused_in_words(body: bytes, words: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert words in error(post("/predict", content=body, headers=headers), 400)
    assert "without a boundary" in error(
        post("/predict", content=body, headers={"Content-Type": "multipart/form-data"}), 400
    )


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_refused_before_it_is_read_to_its_end(chunked: bool) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 50_000_000:
            read += 65536
            yield bytes(65536)

    model = StandIn("pair", ["cat", "dog"], max_upload_bytes=100_000)
    headers = {} if chunked else {"Content-Length": "50003968"}
    words = error(post("/predict", model, content=endless(), headers=headers), 413)
    assert words == (
        "the body is more than the limit of 100,000 bytes (maxUploadMib)"
        if chunked
        else "50,003,968 bytes is more than the limit of 100,000 (maxUploadMib)"
    )
    assert read < 300_000
    assert model.items == []


def test_bodies_together_have_a_limit_and_give_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODIES_MIB", 0)
    slow, quick = (
        StandIn("slow", ["a", "b"], max_upload_bytes=1000, answers=False),
        StandIn("quick", ["a"], max_upload_bytes=1000),
    )

    async def use(client: httpx.AsyncClient) -> list[httpx.Response]:
        held = [asyncio.create_task(client.post("/predictions/slow", content=JPEG * 75)) for _ in range(4)]
        while len(slow.items) < 4:
            await asyncio.sleep(0.01)
        full = await client.post("/predictions/quick", content=JPEG * 80)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        return [full, await client.post("/predictions/quick", content=JPEG * 80)]

    full, later = asked(use, slow, quick)
    assert "are being received and answered already" in error(full, 503)
    assert full.headers["retry-after"] == "1"
    assert later.status_code == 200


def test_a_slow_upload_and_a_slow_answer_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "UPLOAD_TIMEOUT_S", 0.05)
    monkeypatch.setattr(routes, "REQUEST_TIMEOUT_S", 0.05)

    async def never() -> AsyncIterator[bytes]:
        yield b"begin"
        await asyncio.sleep(60)

    assert "not complete" in error(post("/predict", content=never()), 408)
    model = StandIn("pair", ["cat", "dog"], answers=False)
    late = post("/predict", model, content=JPEG)
    assert "did not answer within 0.05 s" in error(late, 503)
    assert late.headers["retry-after"]
    assert model.dropped == 1


def test_work_of_a_client_that_has_gone_is_dropped() -> None:
    model = StandIn("pair", ["cat", "dog"], answers=False)
    sent: list[Any] = []

    async def run() -> None:
        received = iter([{"type": "http.request", "body": JPEG, "more_body": False}, {"type": "http.disconnect"}])

        async def receive() -> Any:
            return next(received)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }
        await create_app({"pair": model})({**scope, "http_version": "1.1", "scheme": "http"}, receive, send)  # type: ignore[dict-item]

    asyncio.run(run())
    assert model.dropped == 1
    assert sent[0]["status"] == 499


def test_busy_and_broken_models_say_so_and_when_to_ask_again() -> None:
    model = StandIn("pair", ["cat", "dog"])
    model.refusal = Unavailable(429, "model pair has 100 requests waiting already", 1)
    busy = post("/predict", model, content=JPEG)
    assert "100 requests waiting" in error(busy, 429)
    assert busy.headers["retry-after"] == "1"
    model.problem = "its process was ended by SIGKILL; it is being started again"
    ping = get("/ping", model)
    assert (ping.status_code, ping.json()) == (503, {"status": "Unhealthy", "models": {"pair": model.problem}})
    assert get("/models", model).json()["models"][0]["problem"] == model.problem


def test_a_bug_is_an_error_in_json_without_its_details() -> None:
    model = StandIn("pair", ["cat", "dog"])
    model.refusal = RuntimeError("secret")  # type: ignore[assignment]
    assert "secret" not in error(post("/predict", model, content=JPEG), 500)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/predictions/pair", 405, "GET is not allowed for /predictions/pair; POST, PUT"),
        ("DELETE", "/ping", 405, "DELETE is not allowed for /ping; GET"),
        ("GET", "/nothing", 404, "no such page: /nothing; see /docs"),
        ("POST", "/predictions/pear", 404, "did you mean 'pair'?; it serves pair"),
        ("POST", "/predictions/pair/2.0", 404, "it serves 1.0"),
        ("POST", "/predictions/..%2F..%2Fetc%2Fpasswd", 404, ""),
        ("POST", "/predict?top=0", 400, "top must be a whole number from 1, got '0'"),
        ("POST", "/predict?top=many", 400, "top must be a whole number from 1, got 'many'"),
        ("POST", "/predict?model=%00", 404, "Model not found: '\\x00'"),
    ],
)
def test_every_refusal_has_the_one_shape(method: str, path: str, status: int, words: str) -> None:
    assert words in error(asked(lambda client: client.request(method, path, content=JPEG)), status)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8080"])
def test_loopback_by_any_of_its_names_may_ask(host: str) -> None:
    assert get("/ping", host=host).status_code == 200
    assert get("/ping", host=host, headers={"Origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "localhost.example.org:8080", "10.0.0.1"])
def test_a_foreign_name_or_page_may_not(host: str) -> None:
    assert "is not this machine's loopback" in error(get("/ping", host=host), 403)
    assert "may not ask" in error(post("/predict", content=JPEG, headers={"Origin": f"http://{host}"}), 403)
    assert "may not ask" in error(post("/predict", content=JPEG, headers={"Origin": "null"}), 403)


def test_pages_may_do_nothing_beyond_themselves() -> None:
    for path in ("/", "/docs", "/ping", "/nothing"):
        answer = get(path)
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
        assert "http" not in policy.get("connect-src", "")


def test_the_description_has_every_body_and_every_answer() -> None:
    described = get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/predict",
        "/predictions/{name}",
        "/predictions/{name}/{version}",
        "/ping",
        "/models",
        "/metrics",
    }
    for path, methods in described["paths"].items():
        for route in methods.values():
            assert all(
                answer["description"] not in {"", "Successful Response"} for answer in route["responses"].values()
            )
            if not path.startswith("/predict"):
                continue
            assert {"200", "400", "404", "413", "429", "503"} <= set(route["responses"])
            assert "422" not in route["responses"]  # FastAPI's own; ours are 400
            assert "multipart/form-data" in route["requestBody"]["content"]
            for status, answer in route["responses"].items():
                name = "Prediction" if status == "200" else "Error"
                assert answer["content"]["application/json"]["schema"] == {"$ref": f"#/components/schemas/{name}"}
    identifiers = [route["operationId"] for methods in described["paths"].values() for route in methods.values()]
    assert len(set(identifiers)) == len(identifiers)
    json.dumps(described, allow_nan=False)


def test_metrics_count_by_model_and_status() -> None:
    async def use(client: httpx.AsyncClient) -> str:
        for body in (JPEG, JPEG, b"no"):
            await client.post("/predict", content=body)
        return (await client.get("/metrics")).text

    text = asked(use)
    assert 'trainserve_requests_total{model="pair",status="200"} 2.0' in text
    assert 'trainserve_requests_total{model="pair",status="400"} 1.0' in text
    assert 'trainserve_request_seconds_count{model="pair"} 2.0' in text
    assert 'trainserve_model_ready{model="pair"} 1.0' in text
