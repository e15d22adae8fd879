"""What a model says of a labelled folder: everything that measures, reports and comparisons are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from trainserve.errors import UserError


@dataclass(frozen=True)
class Evaluation:
    """One model's answers to N labelled pictures, over C classes."""

    source: str  # run, bundle or URL, as the user named it
    classes: tuple[str, ...]  # in the order of the columns
    pictures: tuple[str, ...]  # paths relative to root, N of them
    root: Path  # folder of the pictures
    labels: np.ndarray  # int64 [N]
    probabilities: np.ndarray  # float32 [N, C], rows sum to 1; from a URL: top-k known, all C asked for
    skipped: tuple[tuple[str, str], ...]  # (picture, reason)

    def __post_init__(self) -> None:
        count, classes = len(self.pictures), len(self.classes)
        assert self.labels.shape == (count,), f"{self.labels.shape} labels of {count} pictures"
        assert self.probabilities.shape == (count, classes), f"{self.probabilities.shape} for {count} x {classes}"
        assert not count or 0 <= self.labels.min() <= self.labels.max() < classes, "a label is no class's index"

    @cached_property
    def predicted(self) -> np.ndarray:
        """The class with the largest probability, of equals the first: int64 [N]."""
        return self.probabilities.argmax(axis=1).astype(np.int64) if len(self.pictures) else self.labels

    @cached_property
    def confidence(self) -> np.ndarray:
        """The largest probability: float32 [N]."""
        return self.probabilities.max(axis=1) if len(self.pictures) else np.zeros(0, np.float32)

    def check(self) -> None:
        """Raises UserError where there is nothing to measure, or an answer that is no number."""
        if not self.pictures:
            why = f"; {self.skipped[0][0]}: {self.skipped[0][1]}" if self.skipped else ""
            raise UserError(f"{self.root}: not one picture could be evaluated{why}")
        wrong = np.flatnonzero(~np.isfinite(self.probabilities).all(axis=1))
        if len(wrong):
            raise UserError(
                f"{self.source}: its answer to {self.pictures[wrong[0]]} is no number (NaN), "
                f"as to {len(wrong)} of {len(self.pictures)} pictures",
                hint="its weights are broken: train again, with a smaller --lr",
            )
