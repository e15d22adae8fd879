"""Where a run comes from: its spec, its pictures, the code and the machines."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median_low
from typing import Any

import trainserve
from trainserve.evaluate.evaluation import Evaluation
from trainserve.evaluate.report.content import DataFacts, Facts, Setting
from trainserve.evaluate.report.history import History
from trainserve.machine import cgroup
from trainserve.machine.usage import size_words
from trainserve.observe.words import duration
from trainserve.package.description import ModelDescription
from trainserve.spec.classifier import Classifier
from trainserve.spec.load import fields
from trainserve.train.folders import as_text
from trainserve.train.imagecheck import left_out
from trainserve.train.imagefolder import survey_for
from trainserve.train.preprocess import open_picture
from trainserve.train.weights import RECORD

HEADERS = 500  # pictures whose size is read, spread evenly
SKIPPED = 50  # told by name
PACKAGES = ("torch", "torchvision", "scikit-learn", "pillow", "numpy")


def settings(classifier: Classifier, history: History) -> tuple[Setting, ...]:
    """Every field with its value and default; values that were chosen from the pictures have both words."""
    values = classifier.model_dump(mode="json", by_alias=True)
    facts = history.facts
    chosen = {"spec.model.imageSize": facts.get("imageSize"), "spec.model.stem": facts.get("stem")}
    found = []
    for path, info in fields():
        dotted = ".".join(map(str, path))
        if path[0] != "spec":
            continue
        value: Any = values
        for part in path:
            value = value[part]
        required = info.is_required()
        default = None if required else info.get_default(call_default_factory=True)
        default = list(default) if isinstance(default, tuple) else default
        words = _value(value)
        if value in (None, "auto") and chosen.get(dotted) is not None:
            words = f"{_value(chosen[dotted])} (chosen from the pictures)"
        found.append(
            Setting(dotted.removeprefix("spec."), words, "required" if required else _value(default), value != default)
        )
    return tuple(found)


def _value(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def data_facts(facts: Facts, history: History, folder: Path | None, evaluation: Evaluation | None) -> DataFacts | None:
    """The pictures of the training: looked at where they are still there, else counted from what the run wrote.

    `folder` is where they are now, when they were moved.
    """
    skipped = tuple((bad.path, bad.reason) for bad in left_out(facts.output / "data-check.json"))
    train, val = history.facts.get("trainSamples"), history.facts.get("valSamples")
    classifier = facts.classifier
    if classifier is None:
        return None if train is None else DataFacts("", False, train, val, skipped=skipped)
    path = Path(classifier.spec.data.path) if folder is None else folder
    data = classifier.spec.data.model_copy(update={"path": str(path)})
    spec = classifier.spec.model_copy(update={"data": data})
    survey = survey_for(classifier.model_copy(update={"spec": spec}))
    if survey.refusals:
        counts: Counter[str] = Counter()
        if evaluation is not None:
            counts.update(evaluation.classes[label] for label in evaluation.labels)
        classes = tuple((name, None, counts[name]) for name in evaluation.classes) if evaluation else ()
        return DataFacts(as_text(str(path)), False, train, val, classes, skipped=skipped)
    listing = survey.listing.without(name for name, _ in skipped)
    samples = list(listing.samples())
    widths, heights, formats = _headers([listing.root / sample.path for sample in _spread(samples, HEADERS)])
    sizes = ""
    if widths:
        sizes = (
            f"{_range(widths)} px wide, {_range(heights)} px high, "
            f"{size_words(sum(sample.size for sample in samples))} together"
        )
    return DataFacts(
        as_text(str(path)),
        True,
        len(listing.train),
        len(listing.val),
        tuple((as_text(name), *counts) for name, counts in listing.counts().items()),
        sizes,
        dict(formats.most_common()),
        len(widths),
        skipped,
        tuple(map(as_text, listing.notices)),
    )


def _spread(items: list[Any], count: int) -> list[Any]:
    return items if len(items) <= count else [items[len(items) * k // count] for k in range(count)]


def _headers(paths: list[Path]) -> tuple[list[int], list[int], Counter[str]]:
    widths, heights, formats = [], [], Counter[str]()
    for path in paths:
        try:
            with path.open("rb") as file, open_picture(file) as image:
                widths.append(image.width)
                heights.append(image.height)
                formats[image.format or "unknown"] += 1
        except Exception:  # decoders raise anything
            formats["unreadable"] += 1
    return widths, heights, formats


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high} (median {median_low(values)})"


def model(description: ModelDescription | None, history: History) -> dict[str, str]:
    """What the network is."""
    facts = history.facts
    found = {
        "network": str(description.arch if description else facts.get("arch", "")),
        "first layers": {"small": "3 x 3, stride 1, no pool", "imagenet": "7 x 7, stride 2, max-pool"}.get(
            description.stem if description else facts.get("stem", ""), ""
        ),
        "sees": f"{facts['imageSize']} x {facts['imageSize']} px" if "imageSize" in facts else "",
        "classes": str(len(description.classes) if description else facts.get("classes", "")),
    }
    return {key: value for key, value in found.items() if value}


def environment(description: ModelDescription | None, history: History) -> dict[str, str]:
    """Of the training as far as it was written down, and of the machine that makes the report."""
    facts, lineage = history.facts, description.lineage if description else {}
    processes = facts.get("worldSize")
    found = {
        "trained on": {"cpu": "CPU", "cuda": "GPU (cuda)"}.get(facts.get("device", ""), str(facts.get("device", ""))),
        "processes": f"{processes}" if processes else "",
        "global batch": f"{facts['batchSize']} pictures a step" if "batchSize" in facts else "",
        "training time": duration(history.seconds) if history.seconds else "",
        "torch of the training": str(lineage.get("torchVersion", "")),
        "code of the training": str(lineage.get("codeVersion", "")),
        "report made by": f"trainserve {trainserve.__version__}, Python {platform.python_version()}",
        "report made on": f"{platform.system()} {platform.release()}, {platform.machine()}, "
        f"{cgroup.cores()} cores, {_memory()}",
        "packages there": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }
    return {key: value for key, value in found.items() if value}


def lineage(facts: Facts, description: ModelDescription | None) -> dict[str, str]:
    """What a result can be made again from, and be told apart by."""
    known: Mapping[str, Any] = description.lineage if description else {}
    weights = known.get("weights") or _record(facts.output / RECORD)
    found = {
        "run": facts.name,
        "created": ""
        if facts.created is None
        else f"{datetime.fromtimestamp(facts.created, UTC):%Y-%m-%d %H:%M:%S} UTC",
        "job": str(known.get("job", "")),
        "job uid": str(known.get("jobUid", "")) or facts.uid,
        "restarts": str(facts.restarts),
        "seed": str(known.get("seed", facts.classifier.spec.train.seed if facts.classifier else "")),
        "code version": str(known.get("codeVersion", "")),
        "data digest (sha256)": str(known.get("dataDigest", "")),
        "weights digest (sha256)": description.weights_digest if description else "",
        "checkpoint": str(known.get("checkpoint", "")),
        "started from": _started_from(weights),
    }
    return {key: value for key, value in found.items() if value}


def _record(file: Path) -> Any:
    """What a run that has no bundle yet wrote at its start about the weights it began with."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _started_from(weights: Any) -> str:
    if not isinstance(weights, Mapping):
        return "random weights"
    return ", ".join(
        f"{key} {value}" for key, value in weights.items() if isinstance(value, str | int | float) and value != ""
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _memory() -> str:
    total = cgroup.total_memory()
    return "memory unknown" if total is None else f"{size_words(total)} memory"
