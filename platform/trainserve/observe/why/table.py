"""The table of causes: the first rule that matches counts, so what is particular stands first.

A rule looks at one failure (`Scene`) and says what happened in words and the one thing to do about it.
"""

from __future__ import annotations

from dataclasses import replace

from trainserve.observe.why.rule import Cause, Rule, words
from trainserve.observe.why.rules import (
    deaths,
    disruptions,
    gpus,
    images,
    installation,
    network,
    pictures,
    preflight,
    refusals,
    resources,
    rest,
    scheduling,
    stalls,
    workers,
)
from trainserve.observe.why.scene import Scene

RULES: tuple[Rule, ...] = (
    *preflight.RULES,
    *stalls.RULES,
    *refusals.RULES,
    *images.RULES,
    *scheduling.RULES,
    *disruptions.RULES,
    *resources.RULES,
    *pictures.RULES,
    *installation.RULES,
    *network.RULES,
    *gpus.RULES,
    *workers.RULES,
    *deaths.RULES,
    *rest.RULES,
)


def cause_of(scene: Scene) -> Cause:
    """The first rule that matches; the last one always does."""
    for rule in RULES:
        found = rule.when(scene)
        if found is not None:
            here = replace(scene, found=found)
            return Cause(rule.id, words(rule.title, here), words(rule.advice, here))
    raise AssertionError("the last rule matches everything")
