from __future__ import annotations

import hashlib
import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support import bundles
from trainserve.errors import DataError, UserError
from trainserve.machine.files import new_folder, write_bytes
from trainserve.package.bundle import read_bundle, write_bundle
from trainserve.train import architecture, preprocess
from trainserve.train.checkpoint import weights_digest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.bundle(tmp_path_factory.mktemp("bundle"), classes=("1", "10", "2"))


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The bundle with a few bytes for weights: reading verifies digests and does not load them."""
    target = shutil.copytree(whole, tmp_path / "bundle", ignore=shutil.ignore_patterns("weights.safetensors"))
    (target / "weights.safetensors").write_bytes(b"weights")
    values = json.loads((target / "model.json").read_text())
    values["digests"]["weights.safetensors"] = hashlib.sha256(b"weights").hexdigest()
    (target / "model.json").write_text(json.dumps(values))
    return target


def test_copy_is_whole(copy: Path) -> None:
    read_bundle(copy)


def test_reads_what_it_wrote(whole: Path) -> None:
    bundle = read_bundle(whole)
    model = bundle.description
    assert (model.arch, model.stem, model.classes) == ("resnet18", "small", ["1", "10", "2"])
    assert model.metrics == {"top1": 0.5, "top5": 1.0, "valLoss": 1.25}
    assert model.lineage == {"seed": 0}
    assert model.serve.max_upload_mib == 16
    assert len(bundle.golden) == 8
    assert len({golden.class_ for golden in bundle.golden}) > 1


def test_weights_are_those_of_the_checkpoint(whole: Path) -> None:
    weights, expected = load_file(whole / "weights.safetensors"), bundles.checkpoint().weights
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert read_bundle(whole).description.weights_digest == weights_digest(expected)


def test_code_is_that_of_training_byte_for_byte(whole: Path) -> None:
    for module in (preprocess, architecture):
        source = Path(str(module.__file__))
        assert (whole / source.name).read_bytes() == source.read_bytes()


def test_golden_logits_are_those_of_the_eager_network(whole: Path) -> None:
    bundle = read_bundle(whole)
    model = architecture.build("resnet18", 3, "small")
    model.load_state_dict(load_file(whole / "weights.safetensors"))
    model.eval()
    numbers = preprocess.Preprocessing.from_dict(bundle.description.preprocessing)
    for golden in bundle.golden:
        picture = (whole / "golden" / golden.file).read_bytes()
        with torch.inference_mode():
            logits = model(preprocess.preprocess(picture, numbers).unsqueeze(0))[0]
        assert logits.tolist() == pytest.approx(golden.logits, abs=1e-4)


def test_two_writes_have_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    again = bundles.bundle(tmp_path)
    for file in sorted(whole.rglob("*")):
        if file.is_file() and file.name not in {"model.json", "expected.json"}:  # logits: to rounding only
            assert (again / file.relative_to(whole)).read_bytes() == file.read_bytes()


def test_replaces_an_older_bundle_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "old").touch()
    bundles.bundle(tmp_path)
    assert not (tmp_path / "bundle" / "old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "pictures"]


def test_unreadable_samples_are_passed_over(tmp_path: Path) -> None:
    good, bad, gone = tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "gone.png"
    good.write_bytes(bundles.picture(0))
    bad.write_bytes(b"no picture")
    path = write_bundle(bundles.checkpoint(), [bad, gone, good], tmp_path / "bundle", {})
    assert [golden.file for golden in read_bundle(path).golden] == ["00.png"]
    with pytest.raises(DataError, match=r"bad.png: not a picture"):
        write_bundle(bundles.checkpoint(), [bad], tmp_path / "other", {})
    assert not (tmp_path / "other").exists()


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such bundle folder"):
        read_bundle(tmp_path / "nope")


def test_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a bundle: it has no model.json"):
        read_bundle(tmp_path)


def test_torn_bundle_names_the_missing_file(copy: Path) -> None:
    (copy / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"torn bundle: weights.safetensors is missing"):
        read_bundle(copy)


@pytest.mark.parametrize("file", ["weights.safetensors", "preprocess.py", "golden/expected.json"])
def test_altered_file_is_named(copy: Path, file: str) -> None:
    with (copy / file).open("ab") as stream:
        stream.write(b"\n")
    with pytest.raises(UserError, match=rf"{file}: altered"):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("schemaVersion", 2, "schemaVersion"),
        ("arch", "vgg", "arch"),
        ("classes", ["a", "a"], "classes must differ"),
        ("classes", [], "classes"),
        ("novel", 1, "novel"),
        ("digests", {}, "digests lack"),
        ("digests", {"../x": "0"}, "digests lack"),
    ],
)
def test_wrong_model_json_names_the_field(copy: Path, field: str, value: object, said: str) -> None:
    values = json.loads((copy / "model.json").read_text())
    values[field] = value
    (copy / "model.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=rf"model.json: .*{said}"):
        read_bundle(copy)


def test_digest_outside_the_bundle_is_refused(copy: Path) -> None:
    values = json.loads((copy / "model.json").read_text())
    values["digests"]["../secret"] = "0" * 64
    (copy / "model.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"outside the bundle"):
        read_bundle(copy)


def test_a_folder_that_fails_to_fill_does_not_appear(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("x")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match=r"disk full"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.json", b"1")
    write_bytes(tmp_path / "a.json", b"2")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"2")]


def test_a_disk_that_is_full_is_an_error_of_the_system(tmp_path):
    """Not one of the library that writes weights: what runs above knows what to say and which exit code."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            bundles.bundle(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob("weights.safetensors"))
