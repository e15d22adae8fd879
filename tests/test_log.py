"""Log lines: facts of what they are about, as fields or in words, and no credentials."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from trainserve import log as logs

log = logging.getLogger("trainserve.test")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger("trainserve")
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


def said(form: Literal["plain", "text", "json"], level: str = "INFO") -> io.StringIO:
    stream = io.StringIO()
    logs.setup(level, stream, form=form)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_has_one_object_a_line_with_what_it_is_about() -> None:
    stream = said("json")
    with logs.about(namespace="team", name="flowers", uid="u1", generation=2):
        log.info("created %d pods: %s", 3, 'a "quoted"\nword: ü')
        with logs.about(name="other"):
            log.warning("inner")
    log.info("outside")
    first, inner, outside = lines(stream)
    assert first.pop("ts").endswith("+00:00")
    assert first == {
        "level": "info",
        "msg": 'created 3 pods: a "quoted"\nword: ü',
        "logger": "trainserve.test",
        "namespace": "team",
        "name": "flowers",
        "uid": "u1",
        "generation": 2,
    }
    assert (inner["level"], inner["name"], inner["uid"]) == ("warning", "other", "u1")
    assert set(outside) == {"ts", "level", "msg", "logger"}


def test_text_has_the_same_facts_at_the_end_and_plain_has_none() -> None:
    for form, end in (("text", "created namespace=team name=flowers generation=2\n"), ("plain", "created\n")):
        stream = said(form)  # type: ignore[arg-type]
        with logs.about(namespace="team", name="flowers", generation=2):
            log.info("created")
        assert stream.getvalue().endswith(f" I trainserve.test: {end}")


def test_each_task_has_its_own_facts() -> None:
    stream = said("json")

    async def work(name: str) -> None:
        with logs.about(name=name):
            await asyncio.sleep(0)
            log.info("from %s", name)

    async def both() -> None:
        await asyncio.gather(work("a"), work("b"))

    asyncio.run(both())
    assert [(line["msg"], line["name"]) for line in lines(stream)] == [("from a", "a"), ("from b", "b")]


def test_a_traceback_is_part_of_its_line() -> None:
    stream = said("json")
    try:
        raise ZeroDivisionError("by nothing")
    except ZeroDivisionError:
        log.exception("a bug")
    (line,) = lines(stream)
    assert line["level"] == "error"
    assert line["error"].endswith("ZeroDivisionError: by nothing")


@pytest.mark.parametrize("form", ["text", "json"])
def test_credentials_are_hidden(form: Literal["text", "json"]) -> None:
    stream = said(form)
    token = "eyJhbGciOiJSUzI1NiIs.eyJpc3MiOiJrdWJl-_Zg==.c2ln"
    log.warning("refused: %s", {"Authorization": f"Bearer {token}"})
    try:
        raise ValueError(f"bearer {token}")
    except ValueError:
        log.exception("again")
    assert token not in stream.getvalue()
    assert stream.getvalue().count("(hidden)") == 2


def test_what_other_packages_warn_of_has_the_same_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a process that is not pytest's
    stream = said("json")
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    logging.getLogger("aiohttp.access").info("GET /")
    assert [line["logger"] for line in lines(stream)] == ["asyncio"]


def test_levels() -> None:
    stream = said("json", "WARNING")
    log.info("not said")
    log.warning("said")
    assert [line["msg"] for line in lines(stream)] == ["said"]
