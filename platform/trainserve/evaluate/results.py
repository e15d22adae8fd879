"""Evaluations and comparisons as plain JSON values: what the verbs print with `-o json` and `--save` writes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from trainserve.evaluate.compare import Comparison, Pair, Row
from trainserve.evaluate.evaluation import Evaluation
from trainserve.evaluate.measures import Measures

WORST = 20


def document(evaluation: Evaluation, measures: Measures, *, whole: bool = False) -> dict[str, Any]:
    """Everything measured; `whole` adds the confusion matrix and a line for every picture."""
    found: dict[str, Any] = {
        "source": evaluation.source,
        "data": str(evaluation.root),
        "pictures": measures.pictures,
        "unanswered": measures.unanswered,
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
    """A picture with its answer: null twice for one that is no number, which JSON does not have."""
    predicted = evaluation.predicted_name(index)
    return {
        "picture": evaluation.pictures[index],
        "class": evaluation.classes[evaluation.labels[index]],
        "predicted": predicted,
        "probability": None if predicted is None else float(evaluation.confidence[index]),
    }


def comparison(found: Comparison) -> dict[str, Any]:
    """A comparison: what `platform compare -o json` prints. Values are in the order of the subjects."""

    def rows(section: tuple[Row, ...]) -> list[dict[str, Any]]:
        return [{"field": row.field, "values": list(row.values), "same": row.same} for row in section]

    return {
        "subjects": list(found.subjects),
        "spec": [{"field": row.field, "values": list(row.values), "default": list(row.default)} for row in found.spec],
        "data": rows(found.data),
        "onlyClasses": [list(names) for names in found.only_classes],
        "environment": rows(found.environment),
        "result": rows(found.result),
        "pairs": [_pair(item) for item in found.pairs],
    }


def _pair(item: Pair) -> dict[str, Any]:
    paired = item.paired
    if paired is None:
        return {"a": item.a, "b": item.b, "reason": item.reason}
    return {
        "a": item.a,
        "b": item.b,
        "pictures": paired.common,
        "onlyInA": paired.only_in_a,
        "onlyInB": paired.only_in_b,
        "aUnanswered": paired.a_unanswered,
        "bUnanswered": paired.b_unanswered,
        "aRight": paired.a,
        "bRight": paired.b,
        "bothRight": paired.both_right,
        "onlyARight": paired.only_a_right,
        "onlyBRight": paired.only_b_right,
        "bothWrong": paired.both_wrong,
        "p": paired.p,
        "differ": [{"picture": flip.picture, "class": flip.right, "a": flip.a, "b": flip.b} for flip in paired.flips],
        "classes": [{"class": one.name, "pictures": one.pictures, "a": one.a, "b": one.b} for one in paired.classes],
    }
