"""`platform models` and `platform export` as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from support import bundles
from support.command import platform
from trainserve.cli.models import models_command


@pytest.mark.slow
def test_models_lists_the_networks_with_their_published_sizes() -> None:
    table = platform("models")
    assert table.returncode == 0
    rows = [line.split("  ") for line in table.stdout.splitlines()]
    cells = {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}
    assert {arch: tuple(row[:2]) for arch, row in cells.items() if arch != "ARCH"} == {
        "resnet18": ("11.7 M", "1.8 G"),
        "resnet34": ("21.8 M", "3.7 G"),
        "resnet50": ("25.6 M", "4.1 G"),
        "resnet101": ("44.5 M", "7.8 G"),
        "resnet152": ("60.2 M", "11.5 G"),
    }
    done = CliRunner().invoke(
        models_command, ["--stem", "small", "--image-size", "32", "--classes", "10", "-o", "json"]
    )
    found = json.loads(done.stdout)
    assert found[0]["parameters"] == 11_173_962
    assert found[0]["multiplyAdds"] == pytest.approx(0.56e9, rel=0.01)  # the CIFAR ResNet-18 of many papers


@pytest.mark.slow
def test_export_writes_the_runs_name_and_says_how_well_it_answers(tmp_path: Path) -> None:
    made = bundles.bundle(tmp_path)
    made.rename(tmp_path / "digits")
    done = platform("export", "digits", "--format", "torchscript", "-o", "json", cwd=tmp_path, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["path"] == str(tmp_path / "digits.pt")
    assert found["classes"] == ["1", "10", "2"]
    assert found["maxDifference"] <= found["tolerance"]
    assert f"12 pictures answered by a fresh process: largest difference {found['maxDifference']:.2g}" in done.stderr
    assert "torch-export" in done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["export", "digts", "--format", "onnx"], "no such run 'digts'"),
        (["export", "digits"], "--format"),
        (["models", "--image-size", "4"], "--image-size"),
        (["train", "--data", "x", "--weights", "digts"], "no such run 'digts'"),
        (["train", "--data", "x", "--weights", "imagenett"], "did you mean 'imagenet'?"),
        (["train", "--data", "x", "--weights", "./w.pth"], "w.pth does not exist"),
        (["train", "--data", "x", "--weights", "text.pth"], "nor one that torch.save wrote"),
        (["train", "--data", "x", "--weights", "x.mar"], "x.mar is an archive for TorchServe"),
        (["train", "--data", "x", "--weights", "folder/"], "is a folder without model.json"),
    ],
)
def test_wrong_input_is_told_in_words(words: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "x.mar").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.pth").write_text("hello")
    done = platform(*words, home=tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.slow
def test_weights_become_a_path_that_pods_understand(tmp_path: Path) -> None:
    """A run's name is its bundle, a file's path is absolute, from the folder of the spec that names it."""
    bundle = bundles.bundle(tmp_path / "made")
    run = tmp_path / "home" / "runs" / "digits" / "output"
    run.mkdir(parents=True)
    bundle.rename(run / "bundle")
    (tmp_path / "specs").mkdir()
    torch.save({}, tmp_path / "specs" / "w.pth")  # whose tensors rank 0 looks at
    (tmp_path / "specs" / "a.yaml").write_text(
        "metadata: {name: a}\nspec: {data: {path: x}, model: {weights: ./w.pth}}"
    )
    for words, settled in (
        (["--data", "x", "--weights", "digits"], run / "bundle"),
        (["--data", "x", "--weights", "local://digits"], run / "bundle"),
        (["-f", "specs/a.yaml"], tmp_path / "specs" / "w.pth"),
        (["--data", "x", "--weights", "imagenet"], "imagenet"),
    ):
        done = platform("train", *words, "--dry-run", "-o", "json", home=tmp_path / "home", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        classifier, job = json.loads(done.stdout)
        assert classifier["spec"]["model"]["weights"] == str(settled)
        pod = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
        mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted.get("weights") == (None if settled == "imagenet" else str(settled))
