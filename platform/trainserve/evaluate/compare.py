"""What differs between models: in their specs, pictures, environment and results, and picture by picture. Pure.

The first is what the others are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainserve.evaluate.paired import Answered, Paired, pair
from trainserve.spec.classifier import ClassifierSpec

# Rows of a section, in order; a Subject may lack any.
DATA = ("path", "digest", "classes", "trainPictures", "valPictures")
ENVIRONMENT = ("torch", "torchvision", "python", "device", "processes", "code")
RESULT = (
    "state", "top1", "top5", "loss", "trainLoss", "bestEpoch", "epochs", "imagesPerSecond", "seconds", "restarts",
    "parameters", "imageSize", "stem",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A run or a bundle, as far as it is known; what is not is None or missing."""

    name: str  # as the user wrote it
    spec: Mapping[str, Any]  # ClassifierSpec as JSON
    data: Mapping[str, Any]  # DATA; path as it is resolved
    environment: Mapping[str, Any]
    result: Mapping[str, Any]  # shares from 0 to 1, seconds, pixels
    classes: tuple[str, ...] | None
    answers: Mapping[str, Answered] | None  # by picture
    where: frozenset[str]  # what names the folder of these pictures: its path, the digest of what is in it


@dataclass(frozen=True)
class Row:
    """One field of all subjects."""

    field: str  # dotted for the spec
    values: tuple[Any, ...]
    default: tuple[bool, ...] = ()  # of a spec's field: which of the values are the default

    @property
    def same(self) -> bool:
        return all(value == self.values[0] for value in self.values)


@dataclass(frozen=True)
class Pair:
    """The first subject and another, picture by picture; `reason` says why not, where `paired` is None."""

    a: str
    b: str
    paired: Paired | None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """Everything."""

    subjects: tuple[str, ...]
    spec: tuple[Row, ...]  # only what differs
    data: tuple[Row, ...]
    environment: tuple[Row, ...]
    result: tuple[Row, ...]
    only_classes: tuple[tuple[str, ...], ...]  # of each subject: classes that not all have
    pairs: tuple[Pair, ...]


def compare(subjects: Sequence[Subject]) -> Comparison:
    """Compare two subjects or more."""
    known = [set(subject.classes or ()) for subject in subjects]
    everywhere = set.intersection(*known) if all(subject.classes for subject in subjects) else None
    return Comparison(
        subjects=tuple(subject.name for subject in subjects),
        spec=tuple(row for row in _spec_rows(subjects) if not row.same),
        data=_rows(DATA, [subject.data for subject in subjects]),
        environment=_rows(ENVIRONMENT, [subject.environment for subject in subjects]),
        result=_rows(RESULT, [subject.result for subject in subjects]),
        only_classes=tuple(
            () if everywhere is None else tuple(name for name in subject.classes or () if name not in everywhere)
            for subject in subjects
        ),
        pairs=tuple(_pair(subjects[0], other) for other in subjects[1:]),
    )


def _rows(fields: Sequence[str], values: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
    rows = [Row(field, tuple(value.get(field) for value in values)) for field in fields]
    return tuple(row for row in rows if any(value is not None for value in row.values))


def _spec_rows(subjects: Sequence[Subject]) -> Iterator[Row]:
    usual = dict(_leaves(ClassifierSpec.model_validate({"data": {"path": "."}}).model_dump(mode="json", by_alias=True)))
    del usual["data.path"]  # it has no default
    # A spec may be written by another version, with other fields: what it lacks is the default.
    specs = [{**usual, **dict(_leaves(subject.spec))} for subject in subjects]
    order = {field: place for place, field in enumerate(["data.path", *usual])}
    for field in sorted(
        {field for spec in specs for field in spec}, key=lambda name: (order.get(name, len(order)), name)
    ):
        values = tuple(spec.get(field) for spec in specs)
        yield Row(field, values, tuple(field in usual and value == usual[field] for value in values))


def _leaves(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in spec.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _pair(a: Subject, b: Subject) -> Pair:
    missing = [subject.name for subject in (a, b) if subject.answers is None]
    if missing:
        return Pair(a.name, b.name, None, f"{' and '.join(missing)}: no predictions.jsonl; --data FOLDER asks both")
    assert a.answers is not None
    assert b.answers is not None
    # The same path below another folder may well be another picture.
    if not a.where & b.where:
        return Pair(
            a.name, b.name, None, "they were validated on other pictures; --data FOLDER asks both about the same"
        )
    found = pair(a.answers, b.answers)
    return Pair(a.name, b.name, found, "" if found else "no picture was in both validations")
