"""Processes that ended without a word."""

from __future__ import annotations

from trainserve.errors import EXIT_PEER_LOST, EXIT_SIGTERM
from trainserve.observe.why.conditions import code, dies
from trainserve.observe.why.rule import Rule
from trainserve.observe.why.scene import exit_words

RULES: tuple[Rule, ...] = (
    Rule(
        "segfault",
        dies("SIGSEGV", "SIGABRT", "SIGILL", "SIGFPE"),
        lambda s: f"{s.who} crashed in compiled code: it {exit_words(s.code, s.signal).partition(': ')[2]}",
        lambda s: (
            "install this release of the library for another processor (pip install --force-reinstall torch)"
            if s.signal == "SIGILL"
            else f"the stack in the excerpt names the call; it happens again after {s.resume()}? then change that "
            "library's version"
        ),
    ),
    Rule(
        "killed",
        dies("SIGKILL"),
        lambda s: f"{s.who} was killed from outside (SIGKILL); no cgroup counted a kill for memory",
        lambda s: f"dmesg | grep -i 'killed process' tells whether the machine ran out of memory; else {s.resume()}",
    ),
    Rule(
        "killed-by-signal",
        lambda s: {} if s.signal and s.signal != "SIGTERM" else None,
        lambda s: f"{s.who} was ended by {s.signal}",
        lambda s: s.resume(),
    ),
    Rule(
        "stopped",
        code(EXIT_SIGTERM),
        lambda s: f"{s.who} was asked to stop from outside (SIGTERM) and checkpointed",
        lambda s: s.resume(),
    ),
    Rule(
        "peer-lost",
        code(EXIT_PEER_LOST),
        lambda s: f"{s.who} lost contact with another rank, and none said why",
        lambda s: f"platform logs {s.evidence.run} has what each rank wrote last; then {s.resume()}",
    ),
)
