"""Runs, bundles and archives as subjects of a comparison: what is known of each."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Any

from trainserve.client import runs
from trainserve.client.models import find_model
from trainserve.errors import UserError
from trainserve.evaluate.compare import Comparison, Subject
from trainserve.evaluate.compare import compare as compare_subjects
from trainserve.evaluate.paired import Answered
from trainserve.kube import names
from trainserve.observe import events
from trainserve.package.bundle import read_bundle
from trainserve.package.description import WEIGHTS, ModelDescription
from trainserve.package.mar import read_mar
from trainserve.spec import derive
from trainserve.spec.classifier import Classifier
from trainserve.spec.load import load

if TYPE_CHECKING:
    from trainserve.client.listener import Listener
    from trainserve.evaluate.labelled import Split

HEADER_BYTES = 100_000_000  # the most that safetensors itself takes
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch-norm: counted, not trained


def compare(
    models: Sequence[str | Path],
    listener: Listener,
    *,
    data: Path | None = None,
    split: Split | None = None,
    skip_bad: bool = False,
    ignore_unknown: bool = False,
) -> Comparison:
    """What differs between runs, bundles' folders or .mar files; the first is what the others are compared with.

    With `data` each is asked about these pictures; else the answers are those that the runs left. Raises UserError for
    fewer than two, and what reading or asking them raises.
    """
    if len(models) < 2:
        raise UserError("a comparison needs two runs or bundles", hint="platform compare A B")
    subjects = [subject(model) for model in models]
    if data is not None:
        subjects = [
            _asked(one, model, data, listener, split=split, skip_bad=skip_bad, ignore_unknown=ignore_unknown)
            for one, model in zip(subjects, models, strict=True)
        ]
    return compare_subjects(subjects)


def subject(model: str | Path) -> Subject:
    """What is known of a run, finished or not, a bundle's folder or a .mar. Raises UserError."""
    found = find_model(model)
    if found.archive is not None:
        archive = read_mar(found.archive)
        with zipfile.ZipFile(found.archive) as source, source.open(WEIGHTS) as weights:
            known = _subject(str(model), archive.description, None, [], {"parameters": parameters(weights)}, None)
            return _from_anywhere(known)
    if found.bundle is not None:
        return _from_anywhere(_of_output(str(model), found.bundle, found.bundle.parent, None, {}))
    run = found.run
    assert run is not None
    summary = runs.summary(run)
    bundle = run.output / "bundle"
    facts = {"state": summary["state"], "restarts": summary["restarts"]}
    return _of_output(run.name, bundle if bundle.is_dir() else None, run.output, load(run.spec_path), facts)


def _from_anywhere(found: Subject) -> Subject:
    """Of what may have been trained in a pod, where all data is at the same path: that says nothing of what it is."""
    path = str(found.data["path"] or "")
    in_a_pod = any(path == root or path.startswith(f"{root}/") for root in (names.MOUNT_DATA, names.MOUNT_CACHE))
    return replace(found, where=found.where - {path}) if in_a_pod else found


def _of_output(
    name: str, folder: Path | None, output: Path, classifier: Classifier | None, facts: dict[str, Any]
) -> Subject:
    """Of the output folder of a run, or of wherever a bundle lies."""
    bundle = None if folder is None else read_bundle(folder)
    if bundle is not None:
        with (bundle.path / WEIGHTS).open("rb") as weights:
            facts["parameters"] = parameters(weights)
    told, _ = events.read(output / "events.jsonl")
    answers = _answers(output / "predictions.jsonl")
    return _subject(name, None if bundle is None else bundle.description, classifier, told, facts, answers)


def _subject(
    name: str,
    model: ModelDescription | None,
    classifier: Classifier | None,
    told: list[events.Event],
    facts: Mapping[str, Any],
    answers: Mapping[str, Answered] | None,
) -> Subject:
    lineage: Mapping[str, Any] = {} if model is None else model.lineage
    spec = lineage.get("spec", {})
    if classifier is not None:
        spec = classifier.spec.model_dump(mode="json", by_alias=True)
    begun: Mapping[str, Any] = next((event for event in reversed(told) if event["kind"] in ("start", "resume")), {})
    path = spec.get("data", {}).get("path")
    data = {
        "path": None if path is None else str(Path(path).absolute()),
        "digest": lineage.get("dataDigest"),
        "classes": begun.get("classes") if model is None else len(model.classes),
        "trainPictures": lineage.get("trainSamples", begun.get("trainSamples")),
        "valPictures": lineage.get("valSamples", begun.get("valSamples")),
    }
    environment = {
        "torch": lineage.get("torchVersion"),
        "torchvision": lineage.get("torchvisionVersion"),
        "python": lineage.get("pythonVersion"),
        "device": begun.get("device"),
        "processes": begun.get("worldSize"),
        "code": lineage.get("codeVersion"),
    }
    where = frozenset(str(data[key]) for key in ("path", "digest") if data[key])
    result = {**_trained(told), **({} if model is None else _packed(model)), **facts}
    classes = None if model is None else tuple(model.classes)
    return Subject(name, spec, data, environment, result, classes, answers, where)


def _packed(model: ModelDescription) -> dict[str, Any]:
    """Of the checkpoint that became the bundle: the best one."""
    metrics, lineage = model.metrics, model.lineage
    found: dict[str, Any] = {
        "top1": metrics.get("top1"),
        "top5": metrics.get("top5"),
        "loss": metrics.get("valLoss"),
        "trainLoss": metrics.get("trainLoss"),
        "imageSize": model.preprocessing.get("image_size"),
        "stem": model.stem,
    }
    try:
        steps = derive.steps_per_epoch(lineage["trainSamples"], lineage["spec"]["train"]["batchSize"])
        found["bestEpoch"] = int(str(lineage["checkpoint"]).removeprefix("step-")) // steps
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        pass  # a bundle that was not made by a run says nothing of epochs
    return found


def _trained(told: list[events.Event]) -> dict[str, Any]:
    """Of the events: the best epoch so far, speed and time. An epoch that was done again counts as the last time."""
    found: dict[str, Any] = {}
    epochs = {event["epoch"]: event for event in told if event["kind"] == "epoch" and "epoch" in event}
    if epochs:
        best = max(epochs.values(), key=lambda event: (event.get("top1", 0.0), event.get("epoch", 0)))
        found |= {"top1": best.get("top1"), "top5": best.get("top5"), "loss": best.get("valLoss")}
        found |= {"trainLoss": best.get("trainLoss"), "bestEpoch": best.get("epoch"), "epochs": max(epochs)}
    speeds = [event["imagesPerSecond"] for event in told if event["kind"] == "step" and "imagesPerSecond" in event]
    if speeds:
        found["imagesPerSecond"] = round(median(speeds), 1)
    for event in told:
        if event["kind"] == "done":
            found["seconds"] = event.get("seconds")
        if "imageSize" in event:
            found |= {"imageSize": event["imageSize"], "stem": event.get("stem")}
    return found


def _answers(path: Path) -> dict[str, Answered] | None:
    """By picture, of a predictions.jsonl; None where there is none. Raises UserError for something else."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {row["picture"]: Answered(row["class"], _predicted(row)) for row in rows}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}", hint="resume the run: it writes the file again") from None


def _predicted(row: Mapping[str, Any]) -> str | None:
    """The class of a line of predictions.jsonl; None where its probability is no number: then no class was chosen."""
    return str(row["predicted"]) if math.isfinite(row.get("probability", 1.0)) else None


def _asked(
    one: Subject,
    model: str | Path,
    data: Path,
    listener: Listener,
    *,
    split: Split | None,
    skip_bad: bool,
    ignore_unknown: bool,
) -> Subject:
    """The subject with its answers to other pictures."""
    from trainserve.client.evaluate import evaluate

    listener.notice(f"asking {one.name}")
    found = evaluate(model, data, listener, split=split, skip_bad=skip_bad, ignore_unknown=ignore_unknown)
    answers = {
        picture: Answered(found.classes[found.labels[index]], found.predicted_name(index))
        for index, picture in enumerate(found.pictures)
    }
    return replace(one, answers=answers, where=frozenset({str(data.absolute())}))


def parameters(weights: IO[bytes]) -> int:
    """Trained numbers in a safetensors file, by the shapes in its header (huggingface.co/docs/safetensors, Format).

    Raises UserError for another file.
    """
    size = int.from_bytes(weights.read(8), "little")
    try:
        if size > HEADER_BYTES:
            raise ValueError(f"a header of {size:,} bytes")
        header = json.loads(weights.read(size))
        return sum(
            prod(tensor["shape"])
            for name, tensor in header.items()
            if name != "__metadata__" and not name.endswith(STATISTICS)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{WEIGHTS} is not what safetensors writes: {error}", hint="package the run again") from None
