"""`platform compare`, as typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from support import bundles
from support.here import Here
from trainserve.local import rundir
from trainserve.spec.classifier import Classifier
from trainserve.spec.write import to_yaml

pytestmark = pytest.mark.slow

LONG = "a-very-long-name-of-a-run-that-somebody-has-typed"


@pytest.fixture
def two(home: Path, tmp_path: Path) -> None:
    """Two runs on 40 pictures, of which the second gets 12 more right and no other wrong."""
    bundle = bundles.bundle(tmp_path)
    for name, lr, wrong in (("calm", 0.1, 12), (LONG, 0.025, 0)):
        run = rundir.create(name)
        values = {"metadata": {"name": name}, "spec": {"data": {"path": f"/data{'/far' * 20}"}, "train": {"lr": lr}}}
        run.write_spec(to_yaml(Classifier.model_validate(values).model_dump(mode="json", by_alias=True)))
        shutil.copytree(bundle, run.output / "bundle")
        rows = [
            {
                "picture": f"2/{number:02d}{'-picture' * 9}.png",
                "class": "2",
                "predicted": "1" if number < wrong else "2",
            }
            for number in range(40)
        ]
        (run.output / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.usefixtures("two")
def test_the_table_fits_and_says_what_it_means(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = here("compare", "calm", LONG)
    assert done.code == 0, done.err
    assert len(max(done.out.splitlines(), key=len)) <= 80
    assert "train.lr  0.1 (default)  0.025" in done.out
    assert "DATA: the same" in done.out
    assert "A and B on 40 pictures: right 70.0% and 100.0%" in done.out
    assert "only A is right on 0, only B on 12; p = 4.9e-04" in done.out
    assert "B is better, beyond chance" in done.out
    assert "and 2 more pictures (-o json has all)" in done.out


@pytest.mark.usefixtures("two")
def test_json_and_yaml_say_all(here: Here) -> None:
    found = json.loads(here("compare", "calm", LONG, "-o", "json").out)
    assert yaml.safe_load(here("compare", "calm", LONG, "-o", "yaml").out) == found
    assert found["subjects"] == ["calm", LONG]
    assert found["spec"] == [{"field": "train.lr", "values": [0.1, 0.025], "default": [True, False]}]
    (pair,) = found["pairs"]
    assert pair["p"] == pytest.approx(2 / 2**12)
    assert len(pair["differ"]) == 12
    assert pair["classes"] == [{"class": "2", "pictures": 40, "a": 0.7, "b": 1.0}]


@pytest.mark.usefixtures("two")
def test_a_run_against_itself(here: Here) -> None:
    done = here("compare", "calm", "calm")
    assert "they differ on no picture" in done.out
    assert "SPEC: the same" in done.out


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["calm"], "needs two"),
        (["calm", "clam"], "did you mean 'calm'"),
        (["calm", "no.mar"], "no.mar: no such file"),
        (["calm", "calm", "--skip-bad"], "--data"),
        ([], "missing argument"),
    ],
)
def test_what_is_wrong_is_said(here: Here, words: list[str], said: str) -> None:
    done = here("compare", *words)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
