"""The same archive in both engines, the same requests: the same answers and the same refusals."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support import bundles, pictures
from trainserve.serve import torchserve
from trainserve.serve.archives import ModelRef
from trainserve.serve.native import engine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URLs of the model in TorchServe and in the native engine."""
    folder = tmp_path_factory.mktemp("parity")
    ref = ModelRef(bundles.mar(folder, "digits", workers=1, maxUploadMib=1, maxPixels=250_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINSERVE_HOME", str(folder / "home"))
        with (
            torchserve.running([ref], name="old") as old,
            engine.running([ref], name="new") as new,
        ):
            yield f"{old.rest_url}/predictions/digits", f"{new.rest_url}/predictions/digits"


GOOD = bundles.picture(2)
TEXT = base64.b64encode(GOOD).decode()
JSON = {"Content-Type": "application/json"}
REQUESTS: dict[str, dict[str, Any]] = {
    **{f"mode {mode}": {"content": pictures.picture(mode)} for mode in pictures.MODES},
    **{f"orientation {turn}": {"content": pictures.oriented(pictures.corners(64, 48), turn)} for turn in range(1, 9)},
    "form data": {"files": {"data": GOOD}},
    "form file": {"files": {"file": ("a.png", GOOD, "image/png")}},
    "form top": {"files": {"body": GOOD}, "data": {"top": "2"}},
    "header top": {"content": GOOD, "headers": {"top": "1"}},
    "json": {"content": json.dumps({"data": TEXT, "top": 1}), "headers": JSON},
    "empty": {"content": b""},
    "text": {"content": b"plain", "headers": {"Content-Type": "text/plain"}},
    "html": {"content": b"<!doctype html><p>", "headers": {"Content-Type": "image/jpeg"}},
    "zeros": {"content": bytes(100_000)},
    "truncated": {"content": GOOD[: len(GOOD) // 2]},
    "top 0": {"content": GOOD, "headers": {"top": "0"}},
    "top words": {"files": {"data": GOOD}, "data": {"top": "many"}},
    "two pictures": {"files": {"data": GOOD, "file": GOOD}},
    "unknown field": {"files": {"picture": GOOD}},
    "json list": {"content": b"[1, 2]", "headers": JSON},
    "json broken": {"content": b"{", "headers": JSON},
    "json no base64": {"content": b'{"data": "%%%"}', "headers": JSON},
    "json unknown key": {"content": json.dumps({"data": TEXT, "topk": 1}), "headers": JSON},
    "web form": {"data": {"a": "b"}},
    "too many pixels": {"content": bundles.picture(0, size=600)},
    "too many bytes": {"content": bytes(1_048_577)},
}


@pytest.mark.parametrize("what", REQUESTS)
def test_both_engines_answer_the_same(both: tuple[str, str], what: str) -> None:
    old, new = (httpx.post(url, **REQUESTS[what], timeout=60) for url in both)
    assert new.status_code == old.status_code
    assert new.headers["content-type"] == old.headers["content-type"]
    assert new.json() == old.json()
    assert (new.status_code == 200) == ("predictions" in new.json())


def test_unknown_models_and_versions_have_the_same_status_and_shape(both: tuple[str, str]) -> None:
    for path in ("/digits/7.0", "x"):
        old, new = (httpx.post(url + path, content=GOOD, timeout=60) for url in both)
        assert new.status_code == old.status_code == 404
        assert set(new.json()) == set(old.json())
    old, new = (httpx.get(httpx.URL(url).join("/ping"), timeout=60) for url in both)
    assert new.status_code == old.status_code == 200
    assert new.json()["status"] == old.json()["status"] == "Healthy"
