"""What people's folders of pictures look like, from the disk to the archive: one run, one test a case."""

from __future__ import annotations

import colorsys
import json
import shutil
import zipfile
from pathlib import Path

import pytest

from support import pictures
from support.ranks import Ranks, classifier
from support.torchserve_context import REST, Context, extract, load_module
from trainserve.errors import EXIT_DATA, EXIT_OK
from trainserve.package.bundle import read_bundle
from trainserve.train.checkpoint import load_best

pytestmark = pytest.mark.slow

NAMES = [str(number) for number in range(1, 13)]
ORDER = (*sorted([*NAMES, "11 to come"]),)


def colour(name: str) -> tuple[int, int, int]:
    number = NAMES.index(name)
    red, green, blue = colorsys.hsv_to_rgb((number % 6) / 6, 1, 1 if number < 6 else 0.4)
    return round(255 * red), round(255 * green), round(255 * blue)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Twelve numbered classes of one colour each, one class still empty, and what notebooks and disks leave."""
    root = tmp_path_factory.mktemp("data")
    for name in NAMES:
        (root / name).mkdir()
        for number in range(6):
            (root / name / f"{number}.jpg").write_bytes(pictures.flat(colour(name), 8, "JPEG"))
            (root / name / f"._{number}.jpg").write_bytes(bytes(4096))
    (root / "11 to come").mkdir()
    (root / ".ipynb_checkpoints").mkdir()
    shutil.copy(root / "1" / "0.jpg", root / ".ipynb_checkpoints" / "0-checkpoint.jpg")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Ranks:
    train = {"epochs": 12, "batchSize": 12, "lr": 0.05, "warmupEpochs": 1}
    model, augment = {"imageSize": 8}, {"flip": 0, "jitter": 0, "cropScale": [0.9, 1]}
    data = {"allowEmptyClasses": True, "augment": augment}
    spec = classifier(folder, data=data, model=model, train=train)
    with Ranks(spec, tmp_path_factory.mktemp("run"), 1) as ranks:
        assert ranks.codes() == [EXIT_OK], ranks.log()
    return ranks


def notices(run: Ranks) -> list[str]:
    return [event["message"] for event in run.events("notice")]


def classes_of_the_archive(run: Ranks) -> tuple[str, ...]:
    with zipfile.ZipFile(run.output / "tiny.mar") as archive:
        return tuple(json.loads(archive.read("model.json"))["classes"])


def test_img_01_a_hidden_folder_is_no_class_anywhere(run):
    best = load_best(run.output, pytest.fail)
    assert best is not None
    assert ".ipynb_checkpoints" not in best.classes
    assert len(best.classes) == len(classes_of_the_archive(run)) == run.events("start")[0]["classes"] == 13
    [line] = [notice for notice in notices(run) if "ignored" in notice]
    assert "1 hidden or system folder (.ipynb_checkpoints)" in line


def test_img_02_an_empty_class_stops_a_run_or_keeps_its_index(run, folder, tmp_path):
    assert classes_of_the_archive(run) == ORDER
    assert ORDER.index("11 to come") == 3
    strict = classifier(folder, model={"imageSize": 8}, train={"epochs": 1, "batchSize": 12})
    with Ranks(strict, tmp_path, 1) as ranks:
        assert ranks.codes() == [EXIT_DATA], ranks.log()
    assert "no picture in class folder 11 to come" in ranks.log()
    assert not ranks.events("step")


def test_img_05_numbered_folders_keep_their_names_up_to_the_answer(run, folder, tmp_path):
    best = load_best(run.output, pytest.fail)
    assert best is not None
    assert (
        tuple(best.classes)
        == classes_of_the_archive(run)
        == tuple(read_bundle(run.output / "bundle").description.classes)
    )
    unpacked = extract(run.output / "tiny.mar", tmp_path)
    handler, context = load_module(unpacked / "resnet_classifier.py").ResnetClassifier(), Context(unpacked)
    handler.initialize(context)
    requests = [{"body": (folder / name / "0.jpg").read_bytes()} for name in NAMES]
    answers = [json.loads(answer) for answer in handler.handle(requests, context.batch([REST] * len(requests)))]
    assert [answer["predictions"][0]["class"] for answer in answers] == NAMES
    assert [answer["predictions"][0]["index"] for answer in answers] == [ORDER.index(name) for name in NAMES]


def test_img_07_sidecar_files_are_one_line_and_no_broken_pictures(run):
    start = run.events("start")[0]
    assert start["trainSamples"] + start["valSamples"] == 72
    [line] = [notice for notice in notices(run) if "sidecar" in notice]
    assert "72 sidecar files (._*)" in line
    assert not any("skipped" in notice or "corrupt" in notice for notice in notices(run))
