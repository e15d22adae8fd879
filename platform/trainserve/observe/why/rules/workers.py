"""Data workers, where nothing before has said why, and other refused input."""

from __future__ import annotations

from trainserve.errors import EXIT_USER
from trainserve.observe.why.conditions import code, either, hint, logs, says, told
from trainserve.observe.why.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        "data-worker-killed",
        either(
            logs(r"DataLoader worker \(pid\S* (?P<pid>[\d, ]+)\) is killed by signal: (?P<signal>[\w ]+)"),
            says(r"DataLoader worker \(pid\S* (?P<pid>[\d, ]+)\) exited unexpectedly"),
        ),
        lambda s: (
            f"a data worker (process {s.found['pid']}) of {s.who} was killed"
            + (f": {s.found['signal'].strip()}" if s.found.get("signal") else "")
        ),
        lambda s: s.again("--workers 0") + "  (if memory is short: fewer workers need less)",
    ),
    Rule(
        "data-worker-exception",
        says(r"Caught (?P<error>\w+) in DataLoader worker process (?P<worker>\d+)"),
        lambda s: (
            f"data worker {s.found['worker']} of {s.who} raised {s.found['error']}"
            + (f": {s.traceback.strip().splitlines()[-1].partition(': ')[2]}" if s.traceback.strip() else "")
        ),
        lambda s: (
            f"repair the line in the excerpt; it can be tried alone with {s.again('--workers 0')}"
            if s.train
            else "repair the line in the excerpt"
        ),
    ),
    Rule(
        "spec-wrong",
        code(EXIT_USER),
        lambda s: f"what was asked for is wrong: {told(s)}",
        lambda s: hint(s, "correct that and train again; platform train --dry-run shows the resolved spec"),
    ),
)
