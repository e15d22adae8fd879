"""How good a model is, in numbers: accuracy, loss, confusion, precision and recall, calibration, worst mistakes. Pure.

Where two classes have the same probability, the one that comes first in the model's order goes first, here and in
`Evaluation.predicted`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainserve.evaluate.evaluation import Evaluation

TOP = 5
BINS = 15  # as in Guo et al. 2017
FLOOR = float(np.finfo(np.float32).tiny)  # a probability of 0, or none, costs 87.3 in the loss, not infinity


@dataclass(frozen=True)
class ClassMeasures:
    """One class. A quotient of 0 by 0 is 0: precision where it is never answered, recall where it has no pictures."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int  # pictures of this class; 0: recall and f1 are not defined, and not in the averages
    predicted: int  # times it was answered


@dataclass(frozen=True)
class Average:
    """Over the classes that have pictures."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ConfusedPair:
    """Pictures of one class that were taken for another."""

    actual: str
    predicted: str
    count: int
    share: float  # of the pictures of `actual`


@dataclass(frozen=True)
class CalibrationBin:
    """Pictures whose largest probability is in (lower, upper]; the means are None where there is none."""

    lower: float
    upper: float
    count: int
    confidence: float | None  # mean of the largest probabilities
    accuracy: float | None  # share that is right


@dataclass(frozen=True)
class Measures:
    """Everything that is measured. Shares are from 0 to 1."""

    pictures: int
    unanswered: int  # of these: answers that are no numbers (NaN); wrong in all that follows
    top1: float
    top5: float  # with fewer than 5 classes it is 1
    loss: float  # mean of -ln(probability of the right class)
    ece: float  # expected calibration error of the answers that are numbers; 1 where none is
    macro: Average  # every class counts the same
    weighted: Average  # every picture counts the same
    classes: tuple[ClassMeasures, ...]  # in the model's order
    confusion: np.ndarray  # int64 [C, C]: row is the right class, column the answered one; without `unanswered`
    confused: tuple[ConfusedPair, ...]  # most pictures first, then in the model's order
    bins: tuple[CalibrationBin, ...]  # from 0 to 1
    worst: tuple[int, ...]  # indexes of the mistakes, the surest first, without `unanswered`


def measure(evaluation: Evaluation) -> Measures:
    """Measure. An answer that is no number is a wrong one. Raises UserError where there is no picture."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    evaluation.check()
    labels, predicted, answered = evaluation.labels, evaluation.predicted, evaluation.answered
    every = np.arange(len(evaluation.classes))
    alone = len(every) == 1  # scikit-learn warns of a matrix of one number
    confusion = np.array([[answered.sum()]]) if alone else confusion_matrix(labels, predicted, labels=every)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=every, average=None, zero_division=0.0
    )
    times = confusion.sum(axis=0)
    classes = tuple(
        ClassMeasures(
            name, float(precision[k]), float(recall[k]), float(f1[k]), int(support[k]), int(times[k])
        )
        for k, name in enumerate(evaluation.classes)
    )  # fmt: skip
    bins = calibration(evaluation.confidence[answered], (predicted == labels)[answered])
    return Measures(
        pictures=len(labels),
        unanswered=int((~answered).sum()),
        top1=float((predicted == labels).mean()),
        top5=float(((rank_of(evaluation.probabilities, labels) < TOP) & answered).mean()),
        loss=log_loss(np.where(answered[:, None], evaluation.probabilities, 0), labels),
        ece=expected_calibration_error(bins) if answered.any() else 1.0,
        macro=_average(classes, [float(item.support > 0) for item in classes]),
        weighted=_average(classes, [float(item.support) for item in classes]),
        classes=classes,
        confusion=confusion,
        confused=_confused(confusion, support, evaluation.classes),
        bins=bins,
        worst=_worst(evaluation),
    )


def rank_of(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes go before the right one: probabilities [N, C], labels [N] -> int64 [N]."""
    own = probabilities[np.arange(len(labels)), labels][:, None]
    first = np.arange(probabilities.shape[1]) < labels[:, None]
    return ((probabilities > own) | ((probabilities == own) & first)).sum(axis=1)  # type: ignore[no-any-return]


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross entropy in nats: probabilities [N, C], labels [N]."""
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(own, FLOOR, 1.0)).mean())


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> tuple[CalibrationBin, ...]:
    """Pictures by the largest probability [N], in equal widths (lower, upper], with how many of them are `right` [N].

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equations 1 and 2.
    """
    place = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    found = []
    for index in range(bins):
        here = place == index
        count = int(here.sum())
        means = (float(confidence[here].mean(dtype=np.float64)), float(right[here].mean())) if count else (None, None)
        found.append(CalibrationBin(index / bins, (index + 1) / bins, count, *means))
    return tuple(found)


def expected_calibration_error(bins: tuple[CalibrationBin, ...]) -> float:
    """Mean distance of confidence and accuracy, weighted by the pictures of a bin (Guo et al. 2017, equation 3)."""
    total = sum(item.count for item in bins)
    gaps = sum(
        item.count * abs(item.confidence - item.accuracy)
        for item in bins
        if item.confidence is not None and item.accuracy is not None
    )
    return gaps / total if total else 0.0


def _average(classes: tuple[ClassMeasures, ...], weights: list[float]) -> Average:
    def mean(values: list[float]) -> float:
        return float(np.average(values, weights=weights))

    return Average(
        mean([item.precision for item in classes]),
        mean([item.recall for item in classes]),
        mean([item.f1 for item in classes]),
    )


def _confused(confusion: np.ndarray, support: np.ndarray, names: tuple[str, ...]) -> tuple[ConfusedPair, ...]:
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    order = np.lexsort((columns, rows, -wrong[rows, columns]))
    return tuple(
        ConfusedPair(names[row], names[column], int(wrong[row, column]), float(wrong[row, column] / support[row]))
        for row, column in zip(rows[order], columns[order], strict=True)
    )


def _worst(evaluation: Evaluation) -> tuple[int, ...]:
    wrong = np.flatnonzero((evaluation.predicted != evaluation.labels) & evaluation.answered)
    order = np.argsort(-evaluation.confidence[wrong], kind="stable")  # of equals, the first in the listing
    return tuple(int(index) for index in wrong[order])
