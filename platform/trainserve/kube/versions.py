"""Versions of trainserve beside each other: of the command that made a job, of an operator, of an image. Pure."""

from __future__ import annotations

import re

_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})(?![0-9])")
_LONGEST_TOLD = 40  # letters: an annotation may hold anything


def parse(version: str | None) -> tuple[int, int] | None:
    """Major and minor of `1.2`, `1.2.3`, `1.2.0.dev1`, `1.2rc1`; None where there are none."""
    found = _VERSION.match(version) if isinstance(version, str) else None
    return (int(found[1]), int(found[2])) if found else None


def told(version: str | None) -> str:
    """A version as it may stand in a message: short, and quoted where it is none."""
    text = str(version)
    shown = text if len(text) <= _LONGEST_TOLD else f"{text[:_LONGEST_TOLD]}..."
    return shown if parse(version) is not None and shown.isprintable() else repr(shown)
