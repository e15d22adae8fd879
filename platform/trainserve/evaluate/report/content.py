"""Everything that a report says of a run, as data. What is None could not be known; `missing` says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainserve.evaluate.evaluation import Evaluation
from trainserve.evaluate.measures import Measures
from trainserve.evaluate.report.history import History
from trainserve.spec.classifier import Classifier


@dataclass(frozen=True)
class Facts:
    """What is known of a run beside its output folder."""

    name: str
    state: str  # Running, Succeeded, ...
    output: Path
    classifier: Classifier | None  # the resolved spec; None where it cannot be read
    message: str = ""  # of a run that has not succeeded: why, in a sentence
    advice: str = ""  # ... and what to do
    created: float | None = None  # unix seconds
    restarts: int = 0
    uid: str = ""  # of the job


@dataclass(frozen=True)
class Picture:
    """A small picture inside the page."""

    url: str  # data:
    width: int  # px
    height: int
    alt: str
    pixelated: bool = False  # enlarged from a few pixels


@dataclass(frozen=True)
class Example:
    """One picture of the evaluation, with what the network made of it."""

    picture: str  # path below the data folder, as text
    actual: str
    predicted: str
    confidence: float  # probability of `predicted`
    seen: Picture | None = None
    why_predicted: Picture | None = None  # Grad-CAM of `predicted`
    why_actual: Picture | None = None  # Grad-CAM of `actual`


@dataclass(frozen=True)
class PairExamples:
    """Two classes that are confused: mistakes, and a sure right answer of each."""

    actual: str
    predicted: str
    count: int
    share: float  # of the pictures of `actual`
    mistakes: tuple[Example, ...] = ()
    typical_actual: Example | None = None
    typical_predicted: Example | None = None


@dataclass(frozen=True)
class FirstLayer:
    """The first convolution: its filters, and what it makes of one picture."""

    filters: Picture
    maps: Picture | None
    picture: Picture | None  # the one whose maps are shown
    words: str


@dataclass(frozen=True)
class DataFacts:
    """The pictures of the training."""

    path: str
    there: bool  # False: only counted from what the run wrote
    train: int | None
    val: int | None
    classes: tuple[tuple[str, int | None, int | None], ...] = ()  # name, training, validation
    sizes: str = ""  # in words
    formats: Mapping[str, int] = field(default_factory=dict)
    looked_at: int = 0  # headers read for sizes and formats
    skipped: tuple[tuple[str, str], ...] = ()  # picture, reason
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """One field of the spec."""

    field: str
    value: str
    default: str
    changed: bool


@dataclass(frozen=True)
class RunReport:
    """One run, whole."""

    facts: Facts
    history: History
    settings: tuple[Setting, ...] = ()
    evaluation: Evaluation | None = None
    measures: Measures | None = None
    whole: bool = True  # False: of the probabilities only the largest is known, so top-5 and loss are the training's
    asked: str = ""  # which pictures, in words
    own_validation: bool = False  # the pictures by which the checkpoint was chosen
    pairs: tuple[PairExamples, ...] = ()
    worst: tuple[Example, ...] = ()
    cam_words: str = ""
    first_layer: FirstLayer | None = None
    data: DataFacts | None = None
    model: Mapping[str, str] = field(default_factory=dict)  # what the network is
    environment: Mapping[str, str] = field(default_factory=dict)
    lineage: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()  # what this report lacks, and why

    @property
    def top1(self) -> tuple[int, int] | None:
        """(right, all) pictures: of the evaluation, else of the best epoch so far."""
        if self.evaluation is not None and self.measures is not None:
            return int((self.evaluation.predicted == self.evaluation.labels).sum()), self.measures.pictures
        best, total = self.history.best, self.history.facts.get("valSamples")
        return (round(best.top1 * total), int(total)) if best and total else None

    @property
    def top5(self) -> float | None:
        """From 0 to 1."""
        if self.measures is not None and self.whole:
            return self.measures.top5
        return self.trained_value("top5")

    @property
    def loss(self) -> float | None:
        """Mean cross entropy on the validation pictures."""
        if self.measures is not None and self.whole:
            return self.measures.loss
        return self.trained_value("valLoss")

    def trained_value(self, name: str) -> float | None:
        """A metric as the training has measured it: of the end, else of the best epoch so far."""
        done: Mapping[str, Any] = self.history.done or {}
        if name in done:
            return float(done[name])
        best = self.history.best
        return {"top5": best.top5, "valLoss": best.val_loss, "top1": best.top1}.get(name) if best else None
