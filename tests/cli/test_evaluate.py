"""`platform evaluate`, as typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from support import bundles
from support.here import Here
from support.pictures import write_classes
from trainserve.machine.files import sha256_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 30 classes, of which `data` has 25, each with a picture; more than the table's 20 lines."""
    folder = tmp_path_factory.mktemp("models")
    names = tuple(f"class-{number:02d}" for number in range(30))
    bundles.bundle(folder, names)
    for number, name in enumerate(names[:25]):
        (folder / "data" / name).mkdir(parents=True)
        (folder / "data" / name / "a b.png").write_bytes(bundles.picture(number))
    return folder


@pytest.mark.usefixtures("home")
def test_table_json_yaml_and_the_file_say_the_same(models: Path, tmp_path: Path, here: Here) -> None:
    words = ("evaluate", models / "bundle", "--data", models / "data")
    table = here(*words)
    assert table.code == 0
    assert "no pictures of 5 of the model's 30 classes: class-25" in table.err
    assert "and 5 better classes (-o json has all)" in table.out
    assert len([line for line in table.out.splitlines() if line.startswith("class-")]) == 30  # 20 classes, 10 pairs
    assert max(map(len, table.out.splitlines())) < 80
    file = tmp_path / "result.json"
    found = json.loads(here(*words, "-o", "json", "--save", file).out)
    assert yaml.safe_load(here(*words, "-o", "yaml").out) == found
    assert found["source"] == str(models / "bundle")
    assert found["pictures"] == 25
    assert f"{100 * found['top1']:.1f}%" in table.out
    assert [row["class"] for row in found["classes"]] == [f"class-{number:02d}" for number in range(30)]
    assert sum(row["pictures"] for row in found["classes"]) == 25
    saved = json.loads(file.read_text())
    assert {key: value for key, value in saved.items() if key in found} == found
    right = [row["class"] == row["predicted"] for row in saved["predictions"]]
    assert sum(right) / 25 == found["top1"]
    assert sum(saved["confusion"][k][k] for k in range(30)) == sum(right)


@pytest.mark.usefixtures("home")
def test_a_model_that_has_diverged_is_measured_and_told(models: Path, tmp_path: Path, here: Here) -> None:
    wild = Path(shutil.copytree(models / "bundle", tmp_path / "wild"))
    weights = load_file(wild / "weights.safetensors")
    save_file({**weights, "fc.bias": torch.full_like(weights["fc.bias"], torch.nan)}, wild / "weights.safetensors")
    description = json.loads((wild / "model.json").read_text())
    description["digests"]["weights.safetensors"] = sha256_of(wild / "weights.safetensors")
    (wild / "model.json").write_text(json.dumps(description))
    done = here("evaluate", wild, "--data", models / "data", "-o", "json", "--save", tmp_path / "result.json")
    assert done.code == 0
    assert "warning: 25 of 25 answers are no number (NaN), such as that to class-00/a b.png, and count" in done.err
    for text in (done.out, (tmp_path / "result.json").read_text()):
        found = json.loads(text, parse_constant=pytest.fail)  # NaN is not JSON
        assert (found["unanswered"], found["top1"], found["ece"]) == (25, 0, 1)
    assert found["predictions"][0]["predicted"] is None


@pytest.mark.usefixtures("home")
def test_pictures_left_out_are_named_and_counted(models: Path, tmp_path: Path, here: Here) -> None:
    data = write_classes(tmp_path / "data", {"class-00": 2, "class-01": 2})
    (data / "class-01" / "0001.png").write_bytes(b"<html>")
    refused = here("evaluate", models / "bundle", "--data", data)
    assert refused.code == 65
    assert "class-01/0001.png: not a picture: it is an HTML or XML page" in refused.err
    assert "--skip-bad" in refused.err
    done = here("evaluate", models / "bundle", "--data", data, "--skip-bad", "-o", "json")
    assert done.code == 0
    assert "1 of 4 pictures were left out" in done.err
    assert [row["picture"] for row in json.loads(done.out)["skipped"]] == ["class-01/0001.png"]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing"], 2, "no such run 'nothing'"),
        (["{bundle}"], 2, "hint: give --data FOLDER"),
        (["{bundle}", "--data", "{empty}"], 65, "holds no pictures in class folders"),
        (["{bundle}", "--data", "{other}"], 65, "cat (1)"),
        (["{bundle}", "--data", "{other}", "--ignore-unknown"], 65, "none of its classes"),
        (["{bundle}", "--data", "{data}", "--split", "train"], 2, "leave --split out"),
        (["{bundle}", "--data", "{data}", "--save", "{empty}"], 2, "is a folder; give a file such as"),
        (["{bundle}", "--data", "{data}", "--save", "{empty}/no/x.json"], 2, "there is no folder"),
        (["http://127.0.0.1:1/predictions/x", "--data", "{data}"], 3, "no server answers"),
        (["http://127.0.0.1:1/predictions/x", "--data", "{data}", "--device", "cpu"], 2, "is a server"),
    ],
)
def test_what_is_wrong_is_said(
    models: Path, tmp_path: Path, here: Here, words: list[str], code: int, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    write_classes(tmp_path / "other", {"cat": 1})
    places = {
        "bundle": models / "bundle", "data": models / "data", "empty": tmp_path / "empty", "other": tmp_path / "other",
    }  # fmt: skip
    done = here("evaluate", *(word.format(**places) for word in words))
    assert done.code == code, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
