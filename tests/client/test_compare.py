"""What is known of runs, bundles and archives."""

from __future__ import annotations

import io
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from support import bundles
from trainserve.client.compare import compare, parameters, subject
from trainserve.client.listener import Listener
from trainserve.errors import UserError
from trainserve.local import rundir
from trainserve.observe import events
from trainserve.spec.classifier import Classifier
from trainserve.spec.write import to_yaml
from trainserve.train.architecture import build

PICTURES = {"1/a.png": "1", "10/b.png": "10", "2/c.png": "2", "2/d.png": "2"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle and its archive."""
    folder = tmp_path_factory.mktemp("packed")
    bundles.mar(folder)
    return folder


def run(name: str, packed: Path | None, predicted: list[str], data: str = "/data", **train: Any) -> rundir.RunDir:
    """A run as it looks after its end, or, without a bundle, in its middle."""
    made = rundir.create(name)
    values = {"metadata": {"name": name}, "spec": {"data": {"path": data}, "train": train}}
    spec = Classifier.model_validate(values).model_dump(mode="json", by_alias=True)
    made.write_spec(to_yaml(spec))
    told: list[dict[str, Any]] = [
        {"kind": "start", "epochs": 3, "stepsPerEpoch": 2, "classes": 3, "trainSamples": 8, "valSamples": 4,
         "device": "cpu", "worldSize": 2, "imageSize": 32, "stem": "small"},
        {"kind": "step", "step": 1, "imagesPerSecond": 10.0},
        {"kind": "step", "step": 2, "imagesPerSecond": 30.0},
        {"kind": "step", "step": 3, "imagesPerSecond": 12.0},
        {"kind": "epoch", "epoch": 1, "top1": 0.25, "top5": 1.0, "valLoss": 1.5, "trainLoss": 2.0},
        {"kind": "epoch", "epoch": 2, "top1": 0.75, "top5": 1.0, "valLoss": 0.5, "trainLoss": 1.0},
        {"kind": "epoch", "epoch": 2, "top1": 0.5, "top5": 1.0, "valLoss": 0.6, "trainLoss": 1.1},  # done again
    ]  # fmt: skip
    if packed is not None:
        shutil.copytree(packed / "bundle", made.output / "bundle")
        told.append({"kind": "done", "step": 6, "seconds": 90.0, "top1": 0.5})
        rows = [
            {"picture": path, "class": right, "predicted": answer, "probability": 0.5}
            for (path, right), answer in zip(PICTURES.items(), predicted, strict=True)
        ]
        (made.output / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [events.encode({"time": time.time(), **event}) for event in told]  # type: ignore[typeddict-item]
    made.events_path.write_text("".join(lines))
    return made


def test_a_finished_run(home: Path, packed: Path) -> None:
    run("calm", packed, ["1", "10", "2", "2"])
    found = subject("local://calm")
    assert found.name == "calm"
    assert found.result == {
        "state": "Interrupted", "restarts": 0,  # no supervisor has ever run
        "top1": 0.5, "top5": 1.0, "loss": 1.25, "trainLoss": None, "bestEpoch": 2, "epochs": 2,
        "imagesPerSecond": 12.0, "seconds": 90.0, "imageSize": 32, "stem": "small",
        "parameters": sum(tensor.numel() for tensor in build("resnet18", 3, "small").parameters()),
    }  # fmt: skip
    assert found.data["valPictures"] == 4
    assert found.environment["processes"] == 2
    assert found.classes == ("1", "10", "2")
    assert found.answers is not None
    assert len(found.answers) == 4


def test_a_run_in_its_middle(home: Path) -> None:
    run("young", None, [])
    found = subject("young")
    assert (found.result["top1"], found.result["loss"], found.result["bestEpoch"]) == (0.5, 0.6, 2)
    assert found.data == {"path": "/data", "digest": None, "classes": 3, "trainPictures": 8, "valPictures": 4}
    assert found.answers is None
    assert found.classes is None


def test_a_bundle_and_an_archive_know_less(home: Path, packed: Path) -> None:
    bundle, archive = subject(packed / "bundle"), subject(packed / "digits.mar")
    assert bundle.result == archive.result
    assert bundle.result["parameters"] == 11_170_371
    assert bundle.classes == archive.classes
    assert bundle.answers is None


def test_runs_differ_in_spec_and_pictures(home: Path, packed: Path) -> None:
    run("one", packed, ["1", "1", "2", "2"])
    run("two", packed, ["1", "10", "10", "2"], lr=0.05)
    run("far", packed, ["1", "10", "2", "2"], data="/elsewhere")
    found = compare(["one", "two", "far"], Listener())
    assert [(row.field, row.values) for row in found.spec] == [
        ("data.path", ("/data", "/data", "/elsewhere")),
        ("train.lr", (0.1, 0.05, 0.1)),
    ]
    near, far = found.pairs
    assert near.paired is not None
    assert [flip.picture for flip in near.paired.flips] == ["10/b.png", "2/c.png"]
    assert far.paired is None


@pytest.mark.parametrize(
    ("path", "digest", "same"),
    [
        ("/data", "1", False),
        ("/data/x", "1", False),
        ("/cache/x", "1", False),
        ("/data", "0", True),
        ("/mine", "1", True),
    ],
)
def test_what_pods_call_data_does_not_make_two_data_sets_one(
    path: str, digest: str, same: bool, home: Path, packed: Path, tmp_path: Path
) -> None:
    for name, said in (("a", "0"), ("b", digest)):
        lineage = {"spec": {"data": {"path": path}}, "dataDigest": said * 64}
        shown = bundles.samples(tmp_path / "pictures", 1)
        bundles.write_bundle(bundles.checkpoint(), shown, tmp_path / name / "bundle", lineage)
        shutil.copy(run(name, packed, ["1", "10", "2", "2"]).output / "predictions.jsonl", tmp_path / name)
    (pair,) = compare([tmp_path / "a" / "bundle", tmp_path / "b" / "bundle"], Listener()).pairs
    assert (pair.paired is not None) == same


@pytest.mark.slow
def test_the_same_pictures_asked_now(home: Path, packed: Path, tmp_path: Path) -> None:
    for number in range(6):
        file = tmp_path / "data" / ("1", "10", "2")[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bundles.picture(number))
    bundles.bundle(tmp_path, seed=1)
    found = compare([packed / "digits.mar", tmp_path / "bundle"], Listener(), data=tmp_path / "data")
    (item,) = found.pairs
    assert item.paired is not None
    assert item.paired.common == 6


def test_answers_that_were_no_numbers_are_wrong(home: Path, packed: Path) -> None:
    run("calm", packed, ["1", "10", "2", "2"])
    rows = (run("wild", packed, ["1", "10", "2", "2"]).output / "predictions.jsonl").read_text().splitlines()
    rows[1] = rows[1].replace("0.5", "NaN")  # as a diverged network's line is written
    (rundir.open_run("wild").output / "predictions.jsonl").write_text("\n".join(rows))
    (item,) = compare(["calm", "wild"], Listener()).pairs
    assert item.paired is not None
    assert (item.paired.a_unanswered, item.paired.b_unanswered, item.paired.only_a_right) == (0, 1, 1)
    assert item.paired.flips[0].b is None


def test_wrong_words(home: Path, packed: Path) -> None:
    run("calm", packed, ["1", "10", "2", "2"])
    with pytest.raises(UserError, match="needs two"):
        compare(["calm"], Listener())
    with pytest.raises(UserError, match="did you mean 'calm'"):
        compare(["calm", "clam"], Listener())
    for damage in ('{"picture": 1}\n', "[" * 100_000):
        (rundir.open_run("calm").output / "predictions.jsonl").write_text(damage)
        with pytest.raises(UserError, match=r"predictions\.jsonl is damaged"):
            subject("calm")


@pytest.mark.parametrize("weights", [b"", b"\xff" * 100, b"\2" + bytes(7) + b"[]", b'\7\0\0\0\0\0\0\0{"a":1}'])
def test_weights_that_are_no_safetensors(weights: bytes) -> None:
    with pytest.raises(UserError, match="is not what safetensors writes"):
        parameters(io.BytesIO(weights))


def test_parameters_are_counted_as_torch_counts_them(packed: Path) -> None:
    with (packed / "bundle" / "weights.safetensors").open("rb") as weights, torch.device("meta"):
        assert parameters(weights) == sum(tensor.numel() for tensor in build("resnet18", 3, "small").parameters())
