"""One line of `platform doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do where that is not enough."""

    name: str
    verdict: Verdict
    found: str
    needed_for: str
    required: bool = True  # False: the platform's main job, to train and to serve, goes without
    fix: str = ""  # an exact command or a setting; empty where nothing is to be done

    @property
    def stops(self) -> bool:
        """Whether something that is required is not there."""
        return self.verdict == "missing" and self.required
