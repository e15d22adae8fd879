"""A report in sentences, and as plain JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from trainserve.evaluate.report import axes
from trainserve.evaluate.report.content import RunReport
from trainserve.evaluate.report.interval import wilson
from trainserve.evaluate.results import document

FEW = 100  # pictures, under which a result says little


def meaning(report: RunReport) -> list[str]:
    """What the result means, for somebody who has not seen one before: the most important first."""
    found = []
    counted = report.top1
    if counted is None:
        return ["There is no result yet: the run has not finished an epoch."]
    right, total = counted
    low, high = wilson(right, total)
    most = axes.share(high)
    found.append(
        f"Of 100 new pictures like these, expect about {_whole(low)} to {_whole(high)} to be recognised: "
        f"the 95 % confidence interval (Wilson) is {axes.share(low)} to {most}."
    )
    if total < FEW:
        found.append(f"{total} pictures are few: the interval is wide, and two runs can hardly be told apart by it.")
    if report.own_validation:
        found.append(
            "The checkpoint was chosen by these same pictures, so new ones may go slightly worse; "
            "a folder that the training has not seen says how much: "
            f"platform evaluate {report.facts.name} --data FOLDER."
        )
    measures = report.measures
    if measures is not None:
        support = np.array([item.support for item in measures.classes])
        common = int(support.argmax())
        found.append(
            f"Always answering the commonest class ({measures.classes[common].name}) would be right in "
            f"{axes.share(float(support[common] / support.sum()))}."
        )
        weakest = min((item for item in measures.classes if item.support), key=lambda item: (item.recall, item.f1))
        if weakest.recall < 1 and len(measures.classes) > 1:
            known = round(weakest.recall * weakest.support)
            found.append(
                f"The weakest class is {weakest.name}: {known} of its {weakest.support} pictures are recognised."
            )
        found += [_unanswered(report)] if measures.unanswered else [_calibration(report)]
    found += _curve_words(report)
    return found


def _unanswered(report: RunReport) -> str:
    assert report.measures is not None
    count, total = report.measures.unanswered, report.measures.pictures
    return (
        f"{count} of its {total} answers are no number (NaN): it has diverged, and cannot be used. Train again with a "
        "smaller --lr."
    )


def _calibration(report: RunReport) -> str:
    assert report.evaluation is not None
    assert report.measures is not None
    sure = float(report.evaluation.confidence.mean(dtype=np.float64)) - report.measures.top1
    error = f"{100 * report.measures.ece:.1f} points"
    if report.measures.ece < 0.02:
        return f"Its probabilities can be taken as they are: on average {error} off (ECE)."
    side = "too sure of itself" if sure > 0 else "less sure than it could be"
    return f"Its probabilities are {error} off on average (ECE): it is {side}."


def _curve_words(report: RunReport) -> list[str]:
    epochs = report.history.epochs
    best = report.history.best
    if best is None or len(epochs) < 2:
        return []
    planned = report.history.facts.get("epochs", len(epochs))
    found = [f"The best epoch was {best.epoch} of {planned}."]
    lowest = min(epochs, key=lambda epoch: epoch.val_loss)
    last = epochs[-1]
    if len(epochs) > 3 and last.val_loss > 1.1 * lowest.val_loss and last.epoch - lowest.epoch >= 2:
        found.append(
            f"The validation loss rose again after epoch {lowest.epoch}: it began to learn the training pictures by "
            "heart. Fewer epochs, more pictures or more weightDecay would help."
        )
    elif best.epoch == planned == last.epoch and len(epochs) > 1:
        found.append("It was still getting better at the end: more epochs may help.")
    return found


def _whole(value: float) -> str:
    return f"{100 * value:.0f}"


def numbers(reports: Sequence[RunReport]) -> list[dict[str, Any]]:
    """The numbers behind the page: plain JSON values, one object a run."""
    return [_run(report) for report in reports]


def _run(report: RunReport) -> dict[str, Any]:
    facts, counted = report.facts, report.top1
    found: dict[str, Any] = {
        "run": facts.name,
        "state": facts.state,
        "message": facts.message,
        "top1": None,
        "meaning": meaning(report),
        "missing": list(report.missing),
        "curves": {
            "steps": [asdict(step) for step in report.history.steps],
            "epochs": [asdict(epoch) for epoch in report.history.epochs],
            "marks": [asdict(mark) for mark in report.history.marks],
        },
        "evaluation": None,
        "data": asdict(report.data) if report.data else None,
        "settings": [asdict(setting) for setting in report.settings],
        "model": dict(report.model),
        "environment": dict(report.environment),
        "lineage": dict(report.lineage),
    }
    if counted is not None:
        right, total = counted
        low, high = wilson(right, total)
        found["top1"] = {"right": right, "pictures": total, "share": right / total, "low": low, "high": high}
    if report.evaluation is not None and report.measures is not None:
        found["evaluation"] = document(report.evaluation, report.measures)
        found["evaluation"] |= {"top5": report.top5, "loss": report.loss, "asked": report.asked}
        found["evaluation"]["confusion"] = report.measures.confusion.tolist()
    return found
