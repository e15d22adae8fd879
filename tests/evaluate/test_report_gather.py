"""Reports of runs in every state: finished, running, failed, without pictures, with others."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support import bundles, reports
from support.command import platform
from support.pictures import write_classes
from trainserve import Client
from trainserve.client.listener import Lines
from trainserve.errors import DataError, UserError
from trainserve.evaluate.report.content import Facts
from trainserve.evaluate.report.gather import gather
from trainserve.evaluate.report.page import page
from trainserve.evaluate.report.summary import numbers
from trainserve.observe.events import encode
from trainserve.package.bundle import write_bundle
from trainserve.spec.classifier import Classifier
from trainserve.spec.write import to_yaml
from trainserve.train.imagefolder import scan_for

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CLASSES = ("1", "10", "2")


def classifier(data: Path) -> Classifier:
    return Classifier.model_validate(
        {"metadata": {"name": "made"}, "spec": {"data": {"path": str(data)}, "train": {"epochs": 6, "lr": 0.01}}}
    )


def make_run(home: Path, data: Path, *, finished: bool = True, name: str = "made") -> Path:
    """A run folder as the platform leaves it, with the answers of a small network to its validation pictures."""
    write_classes(data, dict.fromkeys(CLASSES, 10), size=32)
    spec = classifier(data)
    folder = home / "runs" / name
    output = folder / "output"
    output.mkdir(parents=True)
    (folder / "classifier.yaml").write_text(to_yaml(spec.model_dump(mode="json", by_alias=True)))
    kept = reports.events()[: None if finished else 30]
    (output / "events.jsonl").write_text("".join(map(encode, kept)) + '{"time": 1, "kind": "st')
    condition = {"type": "Succeeded" if finished else "Suspended", "status": "True", "message": "as asked"}
    job = {
        "apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob",
        "metadata": {"name": name, "uid": "u-1", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1}}}, "status": {"conditions": [condition]},
    }  # fmt: skip
    (folder / "objects.json").write_text(json.dumps({"objects": [job]}))
    if finished:
        listing = scan_for(spec)
        lineage = {"spec": spec.spec.model_dump(mode="json", by_alias=True), "dataDigest": listing.digest, "seed": 0}
        samples = [listing.root / sample.path for sample in listing.val]
        write_bundle(bundles.checkpoint(CLASSES), samples, output / "bundle", lineage)
        rows = [
            {"picture": s.path, "class": CLASSES[s.label], "predicted": CLASSES[0 if k else 1], "probability": 0.75}
            for k, s in enumerate(listing.val)
        ]
        (output / "predictions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def facts(folder: Path, data: Path, state: str = "Succeeded") -> Facts:
    return Facts(folder.name, state, folder / "output", classifier(data))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Home and pictures of a finished run; a test that changes something makes its own copy."""
    root = tmp_path_factory.mktemp("made")
    make_run(root / "home", root / "pictures")
    return root / "home", root / "pictures"


@pytest.fixture
def own(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the run's folder, whose pictures are where they were."""
    return Path(shutil.copytree(made[0] / "runs" / "made", tmp_path / "made"))


def test_a_finished_run_is_told_by_the_answers_it_wrote_down(made: tuple[Path, Path]) -> None:
    home, data = made
    found = gather(facts(home / "runs" / "made", data))
    assert found.missing == ()
    assert found.top1 == (1, 6)  # all but the first are said to be of class 1; two are, and one of them is the first
    assert found.own_validation
    assert not found.whole
    assert found.top5 == pytest.approx(0.9667)  # the training's, of its best epoch
    assert found.measures is not None
    assert found.measures.confusion.sum() == 6
    assert [len(found.worst), len(found.pairs)] == [5, 3]
    for item in found.worst:
        assert item.seen is not None
        assert item.why_predicted is not None
        assert item.why_actual is not None
    assert found.data is not None
    assert (found.data.there, found.data.train, found.data.val) == (True, 24, 6)
    assert found.data.classes == (("1", 8, 2), ("10", 8, 2), ("2", 8, 2))
    assert found.data.sizes.startswith("32 px wide, 32 px high")
    changed = {item.field: item.value for item in found.settings if item.changed}
    assert changed == {"data.path": str(data), "train.epochs": "6", "train.lr": "0.01"}
    assert found.lineage["data digest (sha256)"] == scan_for(classifier(data)).digest
    assert "Grad-CAM" in page([found], NOW)


def test_without_a_bundle_there_is_what_there_is(tmp_path: Path) -> None:
    folder = make_run(tmp_path, tmp_path / "pictures", finished=False)
    found = gather(facts(folder, tmp_path / "pictures", "Running"))
    assert "has no bundle" in found.missing[0]
    assert found.measures is None
    assert len(found.history.steps) == 27
    assert found.top1 == (112, 160)  # 70 % of the 160 validation pictures, in its best epoch
    text = page([found], NOW)
    assert "best epoch so far" in text
    assert "What this report lacks" in text
    assert "Confusion matrix" not in text
    with pytest.raises(UserError, match="has no bundle to ask"):
        gather(facts(folder, tmp_path / "pictures", "Running"), tmp_path / "pictures")


def test_a_run_that_has_not_begun_has_a_report(tmp_path: Path) -> None:
    found = gather(Facts("new", "Pending", tmp_path / "output", None))
    text = page([found], NOW)
    assert "There is no result yet" in text
    assert "The run has not made a step yet." in text
    assert json.dumps(numbers([found]), allow_nan=False)


def test_pictures_that_are_gone_or_were_moved(own: Path, made: tuple[Path, Path], tmp_path: Path) -> None:
    _, data = made
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    model = own / "output" / "bundle" / "model.json"
    gone = tmp_path / "gone"
    text = model.read_text().replace(str(data), str(gone))
    model.write_text(text)
    without = gather(facts(own, gone))
    assert "are not in" in without.missing[0]
    assert without.top1 == (1, 6)
    assert without.worst[0].seen is None
    assert without.data is not None
    assert (without.data.there, without.data.train) == (False, 640)  # what the events say
    assert "not there any more" in page([without], NOW)
    again = gather(facts(own, gone), moved)
    assert again.missing == ()
    assert again.own_validation
    assert again.worst[0].seen is not None
    assert again.data is not None
    assert again.data.there


@pytest.mark.slow
def test_other_pictures_are_asked_about(made: tuple[Path, Path], tmp_path: Path) -> None:
    home, data = made
    other = write_classes(tmp_path / "other", {"10": 3, "2": 4}, size=32, seed=9)
    found = gather(facts(home / "runs" / "made", data), other)
    assert found.evaluation is not None
    assert found.whole
    assert not found.own_validation
    assert len(found.evaluation.pictures) == 7
    assert any("No pictures of 1 of the model" in sentence for sentence in found.missing)
    assert found.data is not None
    assert found.data.path == str(data)  # the training's
    unknown = write_classes(tmp_path / "unknown", {"10": 3, "cat": 4}, size=32)
    with pytest.raises(DataError, match="cat") as error:
        gather(facts(home / "runs" / "made", data), unknown)
    assert "platform evaluate made --data" in str(error.value.hint)
    (other / "2" / "broken.png").write_bytes(b"x")
    write_classes(other, {"1": 10, "10": 10}, size=32)  # the training's own again
    found = gather(facts(home / "runs" / "made", data), other)
    assert any("1 picture is left out, unreadable, such as 2/broken.png" in it for it in found.missing)
    with pytest.raises(DataError, match="does not exist"):
        gather(facts(home / "runs" / "made", data), tmp_path / "no-such")


@pytest.mark.parametrize(
    "damage", ['{"picture": "a"}\n', "not json\n", "", '{"picture":"a","class":"x","predicted":"1"}', "[" * 100_000]
)
@pytest.mark.slow
def test_answers_that_cannot_be_read_are_asked_for_again(own: Path, made: tuple[Path, Path], damage: str) -> None:
    (own / "output" / "predictions.jsonl").write_text(damage)
    found = gather(facts(own, made[1]))
    assert found.whole
    assert found.own_validation
    assert found.evaluation is not None
    assert len(found.evaluation.pictures) == 6


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_answers_that_are_no_numbers_are_told_and_the_rest_is_shown(
    own: Path, made: tuple[Path, Path], share: float
) -> None:
    path = own / "output" / "predictions.jsonl"
    rows = path.read_text().splitlines()
    count = int(share * len(rows))
    path.write_text("\n".join([row.replace("0.75", "NaN") for row in rows[:count]] + rows[count:]))
    found = gather(facts(own, made[1]))
    assert found.missing[0].startswith(f"{count} of 6 answers are no number (NaN), such as that to 1/")
    assert found.measures is not None
    assert found.measures.unanswered == count
    assert found.first_layer is not None
    text = page([found], NOW)
    assert "it has diverged" in text
    assert "Not one mistake" not in text
    assert "nan" not in re.sub(r"data:[^\"]*", "", text).lower().replace("(nan)", "")
    json.dumps(numbers([found]), allow_nan=False)


def test_a_damaged_bundle_is_told(own: Path, made: tuple[Path, Path]) -> None:
    (own / "output" / "bundle" / "weights.safetensors").write_bytes(b"torn")
    found = gather(facts(own, made[1]))
    assert "The bundle cannot be used" in found.missing[0]
    assert found.measures is None


@pytest.fixture
def at_home(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINSERVE_HOME", str(made[0]))
    return made[0]


@pytest.mark.slow
def test_the_command_writes_one_file_and_prints_its_path(made: tuple[Path, Path]) -> None:
    home, _ = made
    done = platform("report", "made", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    path = home / "runs" / "made" / "output" / "report.html"
    assert done.stdout == f"{path}\n"
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not list(path.parent.glob(".report*"))


def test_several_runs_in_one_file(at_home: Path, tmp_path: Path) -> None:
    make_run(at_home, tmp_path / "pictures", finished=False, name="half")
    said: list[str] = []
    out = tmp_path / "two.html"
    client = Client(Lines(said.append))
    made = client.report("made", "half", "made", out=out)
    assert said == [
        "half: The run is Suspended and has no bundle, so there is no confusion matrix, no table of classes and no "
        "picture. Curves and settings are as of now."
    ]
    assert (made.path, made.size) == (out, out.stat().st_size)
    assert [run["run"] for run in made.runs] == ["made", "half"]
    assert client.report("half", "made").path == at_home / "runs" / "half" / "output" / "report-half-made.html"
    with pytest.raises(UserError, match="which run"):
        client.report()


def test_an_interrupted_run_is_told_why_and_what_to_do(at_home: Path, tmp_path: Path) -> None:
    folder = make_run(at_home, tmp_path / "pictures", finished=False, name="cut")
    text = (folder / "objects.json").read_text().replace("Suspended", "Running")
    (folder / "objects.json").write_text(text)
    made = Client().report("cut")
    page = made.path.read_text(encoding="utf-8")
    assert made.runs[0]["state"] == "Interrupted"
    assert "platform resume cut" in page


def test_what_cannot_be_written_or_read_is_told_before_the_work(at_home: Path, tmp_path: Path) -> None:
    client = Client()
    for runs, out, says in (
        (["mad"], None, "did you mean 'made'?"),
        (["made"], tmp_path, "is a folder; give a file such as"),
        (["made"], tmp_path / "no" / "x.html", "there is no folder"),
    ):
        with pytest.raises(UserError, match=re.escape(says)):
            client.report(*runs, out=out)
