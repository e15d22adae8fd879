"""Ranks that do not meet."""

from __future__ import annotations

from trainserve.observe.why.conditions import says, told
from trainserve.observe.why.rule import Rule

_RENDEZVOUS = (
    r"could not reach rank 0 at|rank (?P<absent>\d+) did not come|did not answer within \d+ s|"
    r"(?i:timed out after \d+ seconds waiting for clients)|"
    r"wait timeout after \d+ms|RendezvousTimeoutError|The client socket has timed out"
)

RULES: tuple[Rule, ...] = (
    Rule(
        "rendezvous-timeout",
        says(_RENDEZVOUS),
        lambda s: f"the ranks did not meet: {told(s)}",
        lambda s: (
            f"platform logs {s.evidence.run} --rank {s.found['absent']} ends where that rank stood still"
            if s.found.get("absent")
            else f"see which rank never came (platform status {s.evidence.run}) and why its log ends where it does"
        ),
    ),
)
