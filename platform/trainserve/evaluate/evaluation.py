"""What a model says of a labelled folder: everything that measures, reports and comparisons are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from trainserve.errors import UserError
from trainserve.train.folders import as_text

NOTHING = -1  # in the place of a class's index: the answer is no number


@dataclass(frozen=True)
class Evaluation:
    """One model's answers to N labelled pictures, over C classes."""

    source: str  # run, bundle or URL, as the user named it
    classes: tuple[str, ...]  # in the order of the columns
    pictures: tuple[str, ...]  # paths relative to root, N of them
    root: Path  # folder of the pictures
    labels: np.ndarray  # int64 [N]
    probabilities: np.ndarray  # float32 [N, C], rows sum to 1, or hold NaN; from a URL: top-k known, all C asked for
    skipped: tuple[tuple[str, str], ...]  # (picture, reason)

    def __post_init__(self) -> None:
        count, classes = len(self.pictures), len(self.classes)
        assert self.labels.shape == (count,), f"{self.labels.shape} labels of {count} pictures"
        assert self.probabilities.shape == (count, classes), f"{self.probabilities.shape} for {count} x {classes}"
        assert not count or 0 <= self.labels.min() <= self.labels.max() < classes, "a label is no class's index"

    @cached_property
    def answered(self) -> np.ndarray:
        """Whether the answer is a number: bool [N]. A network that has diverged answers NaN, which is no class."""
        found: np.ndarray = np.isfinite(self.probabilities).all(axis=1)
        return found

    @cached_property
    def predicted(self) -> np.ndarray:
        """The class with the largest probability, of equals the first; NOTHING where it is no number: int64 [N]."""
        if not len(self.pictures):
            return self.labels
        best = np.where(self.answered[:, None], self.probabilities, 0).argmax(axis=1)
        return np.where(self.answered, best, NOTHING).astype(np.int64)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The largest probability, 0 for an answer that is no number: float32 [N]."""
        if not len(self.pictures):
            return np.zeros(0, np.float32)
        found: np.ndarray = np.where(self.answered[:, None], self.probabilities, 0).max(axis=1)
        return found

    def predicted_name(self, index: int) -> str | None:
        """The class that was answered to picture number `index`; None where the answer is no number."""
        number = int(self.predicted[index])
        return None if number == NOTHING else self.classes[number]

    def unanswered(self) -> str | None:
        """What to tell of answers that are no numbers: a sentence with what to do, None where all are numbers."""
        wrong = np.flatnonzero(~self.answered)
        if not len(wrong):
            return None
        return (
            f"{len(wrong)} of {len(self.pictures)} answers are no number (NaN), such as that to "
            f"{as_text(self.pictures[wrong[0]])}, and count as wrong: the weights are broken; train again, with a "
            "smaller --lr"
        )

    def check(self) -> None:
        """Raises UserError where there is nothing to measure."""
        if not self.pictures:
            why = f"; {self.skipped[0][0]}: {self.skipped[0][1]}" if self.skipped else ""
            raise UserError(f"{self.root}: not one picture could be evaluated{why}")
