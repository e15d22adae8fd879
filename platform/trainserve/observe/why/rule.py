"""What a rule is, and what it has to say of a failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from trainserve.observe.why.conditions import When
from trainserve.observe.why.scene import Scene

Words: TypeAlias = Callable[[Scene], str] | str


@dataclass(frozen=True)
class Rule:
    """`when` gives what its pattern caught, or None; `title` and `advice` get the scene with that in `found`."""

    id: str
    when: When
    title: Words
    advice: Words


@dataclass(frozen=True)
class Cause:
    """What a rule has to say of a failure."""

    id: str
    title: str
    advice: str


def words(words: Words, scene: Scene) -> str:
    return words if isinstance(words, str) else words(scene)
