"""A run's report as data, from its output folder and its pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainserve.errors import DataError, UserError
from trainserve.evaluate import infer, labelled
from trainserve.evaluate.evaluation import Evaluation
from trainserve.evaluate.labelled import Labelled
from trainserve.evaluate.measures import Measures, measure
from trainserve.evaluate.report import examples, origin
from trainserve.evaluate.report.content import Facts, RunReport
from trainserve.evaluate.report.history import history
from trainserve.observe import events
from trainserve.package.bundle import Bundle, read_bundle
from trainserve.train.imagecheck import left_out

Progress = Callable[[int, int], None]


def gather(facts: Facts, data: Path | None = None, *, progress: Progress | None = None) -> RunReport:
    """Everything there is to say of a run now; what there is not is told in `missing`.

    The answers of a finished run to its validation pictures are those that it wrote down itself. `data` is where these
    pictures are now, or another labelled folder, which the network is then asked about. Raises UserError and DataError
    for a `data` that cannot be used.
    """
    told = history(events.read(facts.output / "events.jsonl")[0])
    missing: list[str] = []
    bundle = _bundle(facts, missing)
    found = RunReport(
        facts=facts,
        history=told,
        settings=origin.settings(facts.classifier, told) if facts.classifier else (),
    )
    if facts.classifier is None:
        missing.append("The run's spec cannot be read, so its settings are not shown.")
    moved = None
    if bundle is not None:
        found, moved = _evaluated(found, bundle, data, missing, progress)
    elif data is not None:
        raise UserError(
            f"--data {data}: run {facts.name!r} has no bundle to ask about these pictures",
            hint=f"leave --data out; or wait for its end: platform wait {facts.name}",
        )
    description = bundle.description if bundle else None
    return replace(
        found,
        data=origin.data_facts(facts, told, moved, found.evaluation if found.own_validation else None),
        model=origin.model(description, told),
        environment=origin.environment(description, told),
        lineage=origin.lineage(facts, description),
        missing=tuple(missing),
    )


def _bundle(facts: Facts, missing: list[str]) -> Bundle | None:
    path = facts.output / "bundle"
    if not path.is_dir():
        missing.append(
            f"The run is {facts.state} and has no bundle, so there is no confusion matrix, no table of classes and no "
            "picture. Curves and settings are as of now."
        )
        return None
    try:
        return read_bundle(path)
    except UserError as error:
        missing.append(f"The bundle cannot be used, so nothing that needs the network is shown: {error.message}")
        return None


def _evaluated(
    found: RunReport, bundle: Bundle, data: Path | None, missing: list[str], progress: Progress | None
) -> tuple[RunReport, Path | None]:
    """With answers, measures and pictures; and where the training's pictures are now, when they were moved."""
    facts, description = found.facts, bundle.description
    trained = labelled.trained(description, [bad.path for bad in left_out(facts.output / "data-check.json")])
    pictures: Labelled | None = None
    try:
        pictures = labelled.find(description.classes, data, trained)
    except (DataError, UserError) as error:
        if data is not None:
            raise type(error)(error.message, hint=_hint(error, facts.name, data)) from None
        missing.append(
            f"Its pictures are not shown: {error.message}. Numbers are those that the training wrote down; "
            "platform report --data FOLDER shows pictures that were moved."
        )
    written = _written_down(facts, bundle, pictures)
    own = written is not None and (data is None or _same(written, pictures))
    moved = data if own else None
    if own and written is not None:
        evaluation, whole, asked = written, False, "validation pictures of the training"
    elif pictures is not None:
        evaluation = infer.evaluate_bundle(facts.name, bundle, pictures, skip_bad=True, progress=progress)
        whole, asked = True, pictures.what
        own = asked == "validation pictures of the training"
    else:
        missing.append("What the network answered is not known: there are neither its pictures nor predictions.jsonl.")
        return found, None
    if pictures is not None:
        missing += [f"{notice[:1].upper()}{notice[1:]}." for notice in pictures.notices]
    missing += _left_out(evaluation)
    unanswered = evaluation.unanswered()
    if unanswered is not None:
        missing.append(f"{unanswered}.")
    known = labelled.trained_with(pictures, trained) if pictures is not None and trained is not None and not own else 0
    if known:
        missing.append(
            f"The network was trained with {known} of these {len(evaluation.pictures)} pictures: "
            "on new ones the result will be worse."
        )
    measures = measure(evaluation)
    found = replace(found, evaluation=evaluation, measures=measures, whole=whole, asked=asked, own_validation=own)
    return _with_pictures(found, bundle, evaluation, measures, there=pictures is not None), moved


def _hint(error: DataError | UserError, run: str, data: Path) -> str | None:
    """What this command can do about it: it has fewer options than others that find pictures."""
    if error.hint is None or "--" not in error.hint:
        return error.hint
    return f"platform evaluate {run} --data {data} has options to leave classes or pictures out"


def _left_out(evaluation: Evaluation) -> list[str]:
    if not evaluation.skipped:
        return []
    (picture, reason), count = evaluation.skipped[0], len(evaluation.skipped)
    are = "picture is" if count == 1 else "pictures are"
    return [f"{count} {are} left out, unreadable, such as {picture}: {reason}."]


def _with_pictures(
    found: RunReport, bundle: Bundle, evaluation: Evaluation, measures: Measures, *, there: bool
) -> RunReport:
    looker = examples.Looker(bundle)
    preprocessing = looker.preprocessing if there else None
    worst = []
    for index in examples.worst_of(evaluation, measures):
        plain = examples.example(evaluation, index)
        worst.append(looker.with_cam(plain, evaluation.root, evaluation.pictures[index]) if there else plain)
    right = np.flatnonzero(evaluation.predicted == evaluation.labels)
    sample = int(right[evaluation.confidence[right].argmax()]) if len(right) else 0
    return replace(
        found,
        pairs=examples.pairs(evaluation, measures, preprocessing),
        worst=tuple(worst),
        cam_words=looker.cam_words() if there else "",
        first_layer=looker.first_layer(evaluation.root / evaluation.pictures[sample] if there else None),
    )


def _same(written: Evaluation, pictures: Labelled | None) -> bool:
    """Whether the pictures that were found are those that the training wrote down answers to."""
    return pictures is not None and dict(zip(written.pictures, written.labels.tolist(), strict=True)) == dict(
        zip(pictures.pictures, pictures.labels, strict=True)
    )


def _written_down(facts: Facts, bundle: Bundle, pictures: Labelled | None) -> Evaluation | None:
    """The answers in predictions.jsonl, of which only the largest probability is known; None where there are none."""
    classes = tuple(bundle.description.classes)
    index = {name: number for number, name in enumerate(classes)}
    try:
        lines = (facts.output / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
        labels = np.array([index[row["class"]] for row in rows], np.int64)
        probabilities = np.zeros((len(rows), len(classes)), np.float32)
        for number, row in enumerate(rows):
            probabilities[number, index[row["predicted"]]] = row["probability"]
        names = tuple(str(row["picture"]) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # an earlier bundle's, or damaged: the network is asked again
    if not rows:
        return None
    root = pictures.root if pictures is not None else Path(facts.output)
    return Evaluation(facts.name, classes, names, root, labels, probabilities, ())
