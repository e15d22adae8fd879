from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from support import bundles
from trainserve.errors import DataError, EnvironmentProblem, UserError
from trainserve.evaluate import infer
from trainserve.evaluate.evaluation import Evaluation
from trainserve.evaluate.labelled import Labelled
from trainserve.machine.files import sha256_of
from trainserve.package.bundle import read_bundle

COUNT = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`digits.mar`, its bundle, and labelled pictures."""
    folder = tmp_path_factory.mktemp("models")
    bundles.mar(folder)
    for number in range(COUNT):
        file = folder / "data" / ("1", "10", "2")[number % 3] / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bundles.picture(number, size=30 + number))
    return folder


@pytest.fixture
def data(folder: Path) -> Labelled:
    pictures = tuple(f"{('1', '10', '2')[number % 3]}/{number:02d}.png" for number in range(COUNT))
    return Labelled(folder / "data", pictures, tuple(number % 3 for number in range(COUNT)), "all pictures")


def ask(path: Path, data: Labelled, **options: object) -> Evaluation:
    with infer.opened(path) as bundle:
        return infer.evaluate_bundle("here", bundle, data, device="cpu", **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_answers_are_those_of_the_network_that_was_packed(folder: Path, data: Labelled) -> None:
    heard: list[tuple[int, int]] = []
    found = ask(folder / "bundle", data, batch_size=4, threads=2, progress=lambda *numbers: heard.append(numbers))
    checkpoint = bundles.checkpoint()
    model = bundles.build("resnet18", 3, "small")
    model.load_state_dict(checkpoint.weights)
    images = [bundles.preprocess((data.root / path).read_bytes(), checkpoint.preprocessing) for path in data.pictures]
    with torch.no_grad():
        expected = model.eval()(torch.stack(images)).softmax(dim=1).numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert found.pictures == data.pictures
    assert found.labels.tolist() == list(data.labels)
    assert found.classes == ("1", "10", "2")
    assert heard == [(4, COUNT), (8, COUNT), (COUNT, COUNT)]


@pytest.mark.slow
def test_an_archive_answers_as_its_bundle_and_nothing_is_left_behind(
    folder: Path, data: Labelled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    one, other = ask(folder / "bundle", data), ask(folder / "digits.mar", data)
    assert (one.probabilities == other.probabilities).all()
    assert list(tmp_path.iterdir()) == []


def test_batches_and_threads_do_not_change_the_answers(folder: Path, data: Labelled) -> None:
    one, other = ask(folder / "bundle", data, batch_size=1, threads=1), ask(folder / "bundle", data, threads=3)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    assert one.pictures == other.pictures


def test_the_bundle_s_own_code_answers(folder: Path, data: Labelled, tmp_path: Path) -> None:
    """An old bundle keeps the preprocessing it was trained with, whatever this version does."""
    bundle = bundles.bundle(tmp_path)
    source = (bundle / "preprocess.py").read_text()
    (bundle / "preprocess.py").write_text(
        source + "\n\ndef preprocess(data, numbers):\n    raise PictureError('ours')\n"
    )
    with pytest.raises(UserError, match=r"preprocess\.py: altered"):
        ask(bundle, data)
    model = (bundle / "model.json").read_text()
    for name in ("preprocess.py",):
        before = read_bundle(folder / "bundle").description.digests[name]
        model = model.replace(before, sha256_of(bundle / name))
    (bundle / "model.json").write_text(model)
    with pytest.raises(DataError, match=r"1/00\.png: ours"):
        ask(bundle, data)
    assert sorted(path.name for path in bundle.iterdir()) == sorted(p.name for p in (folder / "bundle").iterdir())


@pytest.mark.slow
def test_a_picture_that_cannot_be_read_is_named_or_left_out(folder: Path, data: Labelled, tmp_path: Path) -> None:
    for path in data.pictures:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes((data.root / path).read_bytes())
    (tmp_path / data.pictures[2]).write_bytes(b"")
    (tmp_path / data.pictures[5]).unlink()
    moved = Labelled(tmp_path, data.pictures, data.labels, data.what)
    with pytest.raises(DataError, match=r"2/02\.png: empty file"):
        ask(folder / "bundle", moved)
    found = ask(folder / "bundle", moved, skip_bad=True, batch_size=3)
    assert found.skipped == (("2/02.png", "empty file"), ("2/05.png", "No such file or directory"))
    assert len(found.pictures) == COUNT - 2
    whole = ask(folder / "bundle", data)
    kept = [number for number in range(COUNT) if number not in (2, 5)]
    np.testing.assert_allclose(found.probabilities, whole.probabilities[kept], atol=1e-5)


def test_all_pictures_of_a_batch_may_be_bad(folder: Path, data: Labelled, tmp_path: Path) -> None:
    nowhere = Labelled(tmp_path, data.pictures, data.labels, data.what)
    found = ask(folder / "bundle", nowhere, skip_bad=True)
    assert len(found.skipped) == COUNT
    assert found.probabilities.shape == (0, 3)
    with pytest.raises(UserError, match="not one picture could be evaluated"):
        found.check()


def test_a_gpu_that_is_not_there(folder: Path, data: Labelled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentProblem, match="torch sees no GPU"):
        infer.network(read_bundle(folder / "bundle"), "cuda")
    assert infer.network(read_bundle(folder / "bundle"), "auto").device.type == "cpu"


def test_torch_s_threads_are_as_before(folder: Path, data: Labelled) -> None:
    before = torch.get_num_threads()
    ask(folder / "bundle", data, threads=before + 1)
    assert torch.get_num_threads() == before
