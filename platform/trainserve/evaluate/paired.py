"""Two models on the same pictures: where one is right and the other wrong, and whether that can be chance. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Answered(NamedTuple):
    """One picture's answer."""

    right: str  # its class
    predicted: str | None  # None: the answer was no number (NaN), and is wrong


@dataclass(frozen=True)
class Flip:
    """A picture that one of the two gets right and the other wrong."""

    picture: str
    right: str
    a: str | None  # what the first answers; None: no number
    b: str | None


@dataclass(frozen=True)
class ClassDifference:
    """One class: shares of its pictures that are right, 0 to 1."""

    name: str
    pictures: int
    a: float
    b: float


@dataclass(frozen=True)
class Paired:
    """Both on the pictures that both were asked about, with the same class."""

    common: int
    only_in_a: int  # pictures that the other was not asked about, or with another class
    only_in_b: int
    a_unanswered: int  # of the common ones: answers of the first that were no numbers
    b_unanswered: int
    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    p: float  # McNemar's exact test, two-sided
    flips: tuple[Flip, ...]  # in the order of their paths
    classes: tuple[ClassDifference, ...]  # the largest difference first

    @property
    def a(self) -> float:
        """Share that the first gets right, 0 to 1."""
        return (self.both_right + self.only_a_right) / self.common

    @property
    def b(self) -> float:
        """Share that the second gets right, 0 to 1."""
        return (self.both_right + self.only_b_right) / self.common


def pair(a: Mapping[str, Answered], b: Mapping[str, Answered]) -> Paired | None:
    """Compare the answers of two models, by picture. None where they have no picture in common."""
    common = sorted(picture for picture in a if picture in b and a[picture].right == b[picture].right)
    if not common:
        return None
    rows = [(picture, a[picture].right, a[picture].predicted, b[picture].predicted) for picture in common]
    outcomes = [(x == right, y == right) for _, right, x, y in rows]
    counts = {
        outcome: outcomes.count(outcome) for outcome in [(True, True), (True, False), (False, True), (False, False)]
    }
    return Paired(
        common=len(common),
        only_in_a=len(a) - len(common),
        only_in_b=len(b) - len(common),
        a_unanswered=sum(row[2] is None for row in rows),
        b_unanswered=sum(row[3] is None for row in rows),
        both_right=counts[True, True],
        only_a_right=counts[True, False],
        only_b_right=counts[False, True],
        both_wrong=counts[False, False],
        p=mcnemar(counts[True, False], counts[False, True]),
        flips=tuple(Flip(*row) for row, (x, y) in zip(rows, outcomes, strict=True) if x != y),
        classes=_by_class(rows),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Probability of a split at least as uneven if both were equally good: a fair coin for each picture they differ on.

    Two-sided and exact. Source: McNemar 1947, "Note on the sampling error of the difference between correlated
    proportions or percentages", with the binomial distribution in place of its approximation.
    """
    from scipy.stats import binomtest

    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def _by_class(rows: list[tuple[str, str, str | None, str | None]]) -> tuple[ClassDifference, ...]:
    hits: dict[str, list[tuple[bool, bool]]] = {}
    for _, right, a, b in rows:
        hits.setdefault(right, []).append((a == right, b == right))
    found = []
    for name, own in hits.items():
        share_a, share_b = (sum(side) / len(own) for side in zip(*own, strict=True))
        found.append(ClassDifference(name, len(own), share_a, share_b))
    return tuple(sorted(found, key=lambda item: (-abs(item.a - item.b), item.name)))
