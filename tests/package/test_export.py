"""Exports: each format written, loaded again by a process of its own, and refused when it answers otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from support import bundles
from trainserve.errors import EnvironmentProblem, RunFailed, UserError
from trainserve.machine.files import sha256_of
from trainserve.package import export as exports
from trainserve.package import formats, reload
from trainserve.package.bundle import read_bundle
from trainserve.package.export import export
from trainserve.package.formats import FORMATS
from trainserve.package.network import golden_images, network_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.bundle(tmp_path_factory.mktemp("bundle"))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch-export", "onnx"])  # torchscript: tests/cli/test_models.py
def test_a_fresh_process_answers_as_training_did(bundle: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"model{FORMATS[form].suffix}"
    made = export(bundle, form, file)
    assert (made.classes, made.image_size, made.dynamic_batch) == (("1", "10", "2"), 32, True)
    assert made.checked == 8 + 1 + 3
    assert made.max_difference <= made.tolerance
    assert (made.sha256, made.bytes) == (sha256_of(file), file.stat().st_size)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.slow
def test_a_fixed_batch_takes_one_picture(bundle: Path, tmp_path: Path) -> None:
    made = export(bundle, "onnx", tmp_path / "model.onnx", dynamic_batch=False)
    assert made.checked == 9
    program = (
        "import onnxruntime, sys\n"
        "print(onnxruntime.InferenceSession(sys.argv[1]).get_inputs()[0].shape, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model.onnx")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "[1, 3, 32, 32] False"


def quick(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | None = None) -> None:
    """Nothing is really written; the fresh process answers this, else what the network does."""
    write = lambda form, network, example, metadata, file, **_: file.write_bytes(b"model")  # noqa: E731
    monkeypatch.setattr(formats, "write", write)
    if answer is not None:
        monkeypatch.setattr(exports, "_reloaded", lambda *_: answer)


def right(bundle: Path) -> dict[str, Any]:
    """What a fresh process should say."""
    source = read_bundle(bundle)
    network, images = network_of(source), golden_images(source)
    noise = torch.randn(images[:1].shape, generator=torch.Generator().manual_seed(exports.NOISE_SEED))
    inputs = [*(image.unsqueeze(0) for image in images), noise, torch.cat([images[:1], noise, images[-1:]])]
    with torch.inference_mode():
        logits = [network(tensor).tolist() for tensor in inputs]
    return {"logits": logits, "metadata": source.description.to_json().decode(), "imported": ["torch"]}


def test_right_answers_are_taken(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch, right(bundle))
    assert export(bundle, "torchscript", tmp_path / "m.pt").path.read_bytes() == b"model"


@pytest.mark.parametrize("which", [0, 8, 9])
def test_other_answers_leave_the_old_file(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """A golden picture, the noise, the batch of three."""
    answer = right(bundle)
    largest = max(abs(value) for rows in answer["logits"] for row in rows for value in row)
    answer["logits"][which][-1][1] += 2 * exports.TOLERANCE * largest
    quick(monkeypatch, answer)
    (tmp_path / "m.pt").write_bytes(b"old")
    with pytest.raises(RunFailed, match="differ by"):
        export(bundle, "torchscript", tmp_path / "m.pt")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("m.pt", b"old")]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"metadata": "{}"}, r"does not give model\.json back"),
        ({"imported": ["torch", "trainserve"]}, "loading it again took trainserve too"),
    ],
)
def test_a_file_that_is_not_complete_in_itself_is_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], says: str
) -> None:
    quick(monkeypatch, {**right(bundle), **change})
    with pytest.raises(EnvironmentProblem, match=says):
        export(bundle, "torchscript", tmp_path / "m.pt")


@pytest.mark.slow
def test_a_file_that_does_not_load_is_told_with_the_reason(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    with pytest.raises(EnvironmentProblem, match=r"onnx: the written file does not load again: onnxruntime.*protobuf"):
        export(bundle, "onnx", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_answers_otherwise_here_is_not_exported(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(source: Any) -> torch.nn.Module:
        network = network_of(source)
        with torch.no_grad():
            network.fc.bias += 1  # type: ignore[union-attr, operator]
        return network

    monkeypatch.setattr(exports, "network_of", other)
    with pytest.raises(RunFailed, match="the network in Python on this machine gives logits"):
        export(bundle, "torchscript", tmp_path / "m.pt")


@pytest.mark.parametrize(
    ("form", "name", "options", "says"),
    [
        ("tflite", "m.tflite", {}, "'tflite' is not one of torchscript, torch-export, onnx"),
        ("onnx", "m.pt", {}, r"format onnx ends with \.onnx"),
        ("onnx", "folder", {}, "is a folder; give a file such as .*folder/model.onnx"),
        ("torchscript", "m.pt", {"dynamic_batch": False}, "torchscript takes any batch"),
    ],
)
def test_wrong_requests_are_told_first(
    tmp_path: Path, form: str, name: str, options: dict[str, bool], says: str
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=says):
        export(tmp_path / "no bundle is looked at", form, tmp_path / name, **options)


def test_a_network_that_answers_no_numbers_is_told_as_that(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), 3), torch.nan)

    monkeypatch.setattr(exports, "network_of", lambda _: broken)
    with pytest.raises(RunFailed, match=r"gives logits that are no numbers \(NaN\)\nhint: .* smaller --lr"):
        export(bundle, "torchscript", tmp_path / "m.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_told_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(EnvironmentProblem, match="onnxscript is not installed") as caught:
        export(tmp_path, "onnx", tmp_path / "m.onnx")
    assert caught.value.hint == "pip install 'trainserve[export]'"


def test_the_fresh_process_imports_nothing_of_ours() -> None:
    """Its program must stand alone, because whoever loads an export has nothing else."""
    text = Path(reload.__file__).read_text()
    assert "import trainserve" not in text
    assert "from trainserve" not in text
    done = subprocess.run(
        [sys.executable, "-P", reload.__file__, "onnx", "missing.onnx", "missing.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "missing.json" in done.stderr


def test_the_network_is_built_by_the_bundles_own_code_and_leaves_nothing_in_it(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before = sorted(bundle.rglob("*"))
    source = read_bundle(bundle)
    network = network_of(source)
    assert type(network).__name__ == "ResNet"
    assert not network.training
    with torch.inference_mode():
        logits = network(golden_images(source))
    assert logits.argmax(1).tolist() == [source.description.classes.index(item.class_) for item in source.golden]
    assert json.loads(source.description.to_json())["arch"] == "resnet18"
    assert sorted(bundle.rglob("*")) == before
