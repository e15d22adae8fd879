"""The user's own code, or what no rule knows."""

from __future__ import annotations

from trainserve.observe.why.conditions import hint, told
from trainserve.observe.why.rule import Rule
from trainserve.observe.why.scene import exit_words

RULES: tuple[Rule, ...] = (
    Rule(
        "exception",
        lambda s: {} if s.traceback or s.message else None,
        lambda s: f"{s.who} raised an error: {told(s)}",
        lambda s: hint(s, f"repair the line in the excerpt, then {s.resume()}"),
    ),
    Rule(
        "unknown",
        lambda _: {},
        lambda s: (
            f"{s.who} ended: {exit_words(s.code, s.signal)}" if s.code is not None else s.sentence or "no pod says why"
        ),
        lambda s: f"{s.logs()} has all that it wrote",
    ),
)
