"""Which golden picture a server is asked for before it counts as ready."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support import bundles
from trainserve.errors import EnvironmentProblem
from trainserve.package.mar import MarInfo, read_mar
from trainserve.serve import readiness
from trainserve.serve.client import HttpAnswer
from trainserve.serve.readiness import await_ready, servable_golden


@pytest.fixture(scope="module")
def mar(tmp_path_factory: pytest.TempPathFactory) -> MarInfo:
    return read_mar(bundles.mar(tmp_path_factory.mktemp("mar"), maxPixels=1600))  # its golden pictures have 40 x 40


def limited(mar: MarInfo, max_pixels: int, max_upload_mib: float = 1) -> Any:
    """The archive as if it was packed with other limits."""
    serve = SimpleNamespace(max_pixels=max_pixels, max_upload_mib=max_upload_mib)
    return SimpleNamespace(
        golden=mar.golden, golden_picture=mar.golden_picture, description=SimpleNamespace(serve=serve)
    )


def test_the_first_within_the_model_s_own_limits(mar: MarInfo) -> None:
    assert servable_golden(mar) == mar.golden[0]
    assert servable_golden(limited(mar, 1600)) == mar.golden[0]
    assert servable_golden(limited(mar, 1599)) is None
    assert servable_golden(limited(mar, 1600, 1e-6)) is None


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[HttpAnswer]]:
    """What the server answers to a golden picture; its workers are ready."""
    given: list[HttpAnswer] = []
    monkeypatch.setattr(readiness, "_workers_ready", lambda *_: True)
    monkeypatch.setattr(readiness.RestClient, "_post", lambda *_: given.pop())
    yield given
    assert given == []


def ready(tmp_path: Path, mar: Any) -> None:
    await_ready(
        {"m": mar},
        rest_url="http://127.0.0.1:1",
        management_url="http://127.0.0.1:1",
        log=tmp_path / "log",
        check_alive=lambda: None,
        timeout_s=5,
    )


def test_a_model_whose_golden_pictures_are_too_large_for_it_is_served_and_told(
    mar: MarInfo, tmp_path: Path, answers: list[HttpAnswer], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ready(tmp_path, limited(mar, 100))
    assert "above its own limits (serve.maxPixels 100, maxUploadMib 1)" in caplog.text
    assert "hint: package it with higher limits" in caplog.text


def test_a_golden_picture_that_is_refused_says_what_to_do(
    mar: MarInfo, tmp_path: Path, answers: list[HttpAnswer]
) -> None:
    answers.append(HttpAnswer(400, "", b'{"code": 400, "message": "corrupt"}'))
    with pytest.raises(EnvironmentProblem, match=r"model m refuses its own test: golden picture 00\.png: refused") as e:
        ready(tmp_path, mar)
    assert e.value.hint is not None
    assert "package the run again" in e.value.hint


def test_another_class_than_in_training_is_no_readiness(
    mar: MarInfo, tmp_path: Path, answers: list[HttpAnswer]
) -> None:
    other = next(name for name in mar.description.classes if name != mar.golden[0].class_)
    body = {"model": "m", "version": "1", "predictions": [{"class": other, "index": 0, "probability": 1.0}]}
    answers.append(HttpAnswer(200, "", json.dumps(body).encode()))
    with pytest.raises(EnvironmentProblem, match="training said"):
        ready(tmp_path, mar)
