"""An API server that does not take us, or is not there: the client's words, its hints, and their being told once."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from support.playedserver import WRONG, wrong
from trainserve.kube import names
from trainserve.kube.answers import answered, no_answer, refusal, watched
from trainserve.kube.client import connect
from trainserve.kube.cluster import ApiError
from trainserve.kube.outage import NoAnswer, Origin, Outage, Unauthorized, level, problem

ORIGIN = Origin("clusters.cluster.server of f", "the CA's field of f", "users.user 'me' of f")


@pytest.mark.parametrize("name", WRONG)
def test_who_goes_on_asking_tells_it_once_for_all_requests(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(logging.getLogger("trainserve"), "propagate", True)

    async def ask(path: Path) -> None:
        async with connect(str(path)) as cluster:
            for loud in (False, True):
                if loud:
                    cluster.tell_outages()
                for kind in (names.POD, names.SERVICE, names.PYTORCHJOB) * 2:
                    with pytest.raises((NoAnswer, Unauthorized)) as failed:
                        await cluster.list(kind, None)
                    assert isinstance(failed.value, (NoAnswer, Unauthorized))
                    assert level(failed.value) == logging.DEBUG

    with wrong(name, tmp_path) as (path, says, hints):
        asyncio.run(ask(path))
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1, told
    assert says in told[0]
    assert hints in told[0]


def test_an_outage_is_told_at_its_begin_at_another_cause_and_at_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("trainserve"), "propagate", True)
    outage = Outage()
    outage.loud = True
    outage.answered(5.0)
    outage.failed(NoAnswer("slow"), 4.0, 6.0)  # others were answered meanwhile: this request's own trouble
    outage.failed(NoAnswer("a"), 10.0, 10.0)
    outage.failed(NoAnswer("b"), 11.0, 11.0)
    outage.failed(Unauthorized("no", "log in"), 20.0, 20.0)
    outage.answered(73.0)
    outage.answered(74.0)
    outage.failed(NoAnswer("a"), 80.0, 80.0)
    assert [record.getMessage() for record in caplog.records] == [
        "slow",
        "the API server does not answer us: a. hint: is it running?; asked again until it does",
        "the API server does not answer us: no. hint: log in; asked again until it does",
        "the API server answers again, after 63 s",
        "the API server does not answer us: a. hint: is it running?; asked again until it does",
    ]


@pytest.mark.parametrize(
    ("error", "says", "hints"),
    [
        (
            aiohttp.ClientConnectorDNSError(
                ConnectionKey("no-such", 443, True, True, None, None, None), OSError(None, "no name")
            ),
            "no name",
            "the host is named by clusters.cluster.server of f",
        ),
        (aiohttp.ServerTimeoutError(), "no answer in time", "is it running? its address is clusters.cluster.server"),
        (TimeoutError(), "no answer in time", "is it running?"),
        (
            ValueError("exec: aws: not found"),
            "exec: aws: not found",
            "log in anew: the credentials are users.user 'me'",
        ),
        (
            aiohttp.ClientProxyConnectionError(
                ConnectionKey("proxy", 80, False, True, None, None, None), OSError(None, "refused")
            ),
            "the proxy: ",
            "HTTPS_PROXY",
        ),
    ],
)
def test_each_kind_of_silence_has_words_and_a_hint(error: Exception, says: str, hints: str) -> None:
    found = no_answer("GET /api", error, ORIGIN)
    assert str(found).startswith("GET /api: ")
    assert says in str(found)
    assert hints in found.hint
    ended = problem(found)
    assert str(found) in ended.message
    assert ended.hint == found.hint


def test_what_the_server_says_no_to_is_no_outage() -> None:
    for status in (400, 403, 404, 409, 410, 422, 429, 500, 503):
        found = refusal(status, b"no", ORIGIN)
        assert isinstance(found, ApiError)
        assert not isinstance(found, Unauthorized)
        assert level(found) == logging.WARNING
        assert problem(found, "do this").hint == "do this"
    assert problem(TimeoutError()).message == "the API server does not answer: no answer in time"


NO_STATUS = [b"", b"null", b"[]", b'"x"', b"5", b'{"message": 5, "reason": []}', b"\xff\xfe", b"<html>", b"[" * 100_000]


@pytest.mark.parametrize("body", NO_STATUS, ids=range(len(NO_STATUS)))
@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 502])
def test_whatever_stands_between_is_told_by_its_status_or_its_words(body: bytes, status: int) -> None:
    found = refusal(status, body, ORIGIN)
    assert isinstance(found, ApiError)
    assert found.status == status
    assert found.message
    assert len(found.message) < 500


NO_LIST = [*NO_STATUS, b"{}", b'{"items": []}', b'{"metadata": {"resourceVersion": "1"}, "items": [null]}']


@pytest.mark.parametrize("body", NO_LIST, ids=range(len(NO_LIST)))
@pytest.mark.parametrize("verb", ["get", "list", "create", "patch"])
def test_a_page_in_between_is_no_answer_of_an_api_server(verb: str, body: bytes) -> None:
    if verb != "list" and b"metadata" in body:
        return
    assert answered(verb, body) is None
    found = refusal(200, body, ORIGIN)
    assert isinstance(found, NoAnswer)
    assert "is no API server" in str(found)
    assert ORIGIN.server in found.hint


def test_answers_of_an_api_server() -> None:
    assert answered("get", b'{"kind": "Pod", "metadata": {"name": "x"}}')
    assert answered("get", b'{"kind": "APIResourceList", "resources": []}')
    assert answered("list", b'{"metadata": {"resourceVersion": "1"}, "items": null}')
    assert answered("list", b'{"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "x"}}]}')
    assert answered("delete", b'{"kind": "Status"}')


@pytest.mark.parametrize("line", [*NO_STATUS, b"{}", b'{"type": "ADDED"}', b'{"type": 1, "object": {}}'], ids=range(12))
def test_a_line_that_is_no_event_ends_a_watch_in_words(line: bytes) -> None:
    with pytest.raises(NoAnswer, match="is no API server"):
        watched(line, ORIGIN)
    assert watched(b'{"type": "ADDED", "object": {}}', ORIGIN)["type"] == "ADDED"
