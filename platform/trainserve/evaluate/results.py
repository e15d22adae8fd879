"""An evaluation as plain JSON values: what `platform evaluate -o json` prints and `--save` writes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from trainserve.evaluate.evaluation import Evaluation
from trainserve.evaluate.measures import Measures

WORST = 20


def document(evaluation: Evaluation, measures: Measures, *, whole: bool = False) -> dict[str, Any]:
    """Everything measured; `whole` adds the confusion matrix and a line for every picture."""
    found: dict[str, Any] = {
        "source": evaluation.source,
        "data": str(evaluation.root),
        "pictures": measures.pictures,
        "top1": measures.top1,
        "top5": measures.top5,
        "loss": measures.loss,
        "ece": measures.ece,
        "macro": asdict(measures.macro),
        "weighted": asdict(measures.weighted),
        "classes": [
            {
                "class": item.name,
                "precision": item.precision,
                "recall": item.recall,
                "f1": item.f1,
                "pictures": item.support,
                "answered": item.predicted,
            }
            for item in measures.classes
        ],
        "confused": [asdict(pair) for pair in measures.confused],
        "calibration": [asdict(item) for item in measures.bins],
        "worst": [_picture(evaluation, index) for index in measures.worst[:WORST]],
        "skipped": [{"picture": picture, "reason": reason} for picture, reason in evaluation.skipped],
    }
    if whole:
        found["confusion"] = measures.confusion.tolist()
        found["predictions"] = [_picture(evaluation, index) for index in range(len(evaluation.pictures))]
    return found


def _picture(evaluation: Evaluation, index: int) -> dict[str, Any]:
    predicted = int(evaluation.predicted[index])
    return {
        "picture": evaluation.pictures[index],
        "class": evaluation.classes[evaluation.labels[index]],
        "predicted": evaluation.classes[predicted],
        "probability": float(evaluation.probabilities[index, predicted]),
    }
