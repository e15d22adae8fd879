"""The pictures and labels, and what was asked for."""

from __future__ import annotations

from trainserve.errors import EXIT_DATA
from trainserve.observe.why.conditions import check_data, code, either, hint, logs, reason, says, slower, told
from trainserve.observe.why.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        "nan-loss",
        says(r"the loss became (?P<value>\S+) at step (?P<step>\d+)|(?i:\bloss is (nan|inf))"),
        lambda s: (
            f"{s.who}: the loss became no number"
            + (f" ({s.found['value']}) at step {s.found['step']}" if s.found.get("step") else "")
        ),
        slower,
    ),
    Rule(
        "label-out-of-range",
        logs(r"Target -?(?P<label>\d+) is out of bounds|Assertion `t >= 0 && t < n_classes` failed"),
        lambda s: (
            f"{s.who}: a label is out of range"
            + (f": {s.found['label']} is not below the number of classes" if s.found.get("label") else "")
        ),
        check_data,
    ),
    Rule(
        "ranks-differ",
        says(r"(?P<who>ranks? [\d, .]+) (has|have) other (?P<what>classes|pictures) than rank 0: (?P<how>.+)"),
        lambda s: f"{s.found['who']} found other {s.found['what']} than rank 0: {s.found['how']}",
        lambda s: f"give all nodes the same pictures (one volume, or copy them again), then {s.resume()}",
    ),
    Rule(
        "versions-differ",
        says(r"(?P<who>ranks? [\d, .]+) (has|have) other code version than rank 0"),
        lambda s: f"{s.found['who']} runs another version than rank 0",
        lambda s: f"use the same image, or installation, on all nodes, then {s.resume()}",
    ),
    Rule(
        "picture-unreadable",
        says(r"can no longer be read: (?P<what>.+)"),
        lambda s: f"a picture turned unreadable while {s.who} trained: {s.found['what']}",
        lambda s: s.again("--skip-bad") + "  (or repair the file and resume)",
    ),
    Rule(
        "data-wrong",
        code(EXIT_DATA),
        lambda s: f"the pictures are wrong: {told(s)}",
        lambda s: hint(s, check_data(s)),
    ),
    Rule(
        "checkpoint-mismatch",
        says(r"(?P<field>spec\.\S+?): checkpoint (?P<checkpoint>step-\d+) has (?P<was>.+), this run has (?P<now>.+)"),
        lambda s: (
            f"checkpoint {s.found['checkpoint']} is of another {s.found['field']}: it has {s.found['was']}, "
            f"this run has {s.found['now']}"
        ),
        lambda s: hint(s, f"resume with {s.found['field']} {s.found['was']}, or train anew under another name"),
    ),
    Rule(
        "port-in-use",
        either(
            reason("PortInUse"),
            says(r"(master port (?P<port>\d+)|MASTER_PORT).*([Aa]ddress already in use|EADDRINUSE)"),
        ),
        lambda s: f"the port that the ranks are to meet at is taken: {told(s)}",
        lambda s: (
            "leave MASTER_PORT out of the template: a free port is chosen then"
            if s.reason
            else "choose another port, or end the program that listens there (see: ss -ltnp)"
        ),
    ),
    Rule(
        "not-supported-here",
        reason("NotSupportedLocally"),
        lambda s: f"the job asks for what this machine cannot give: {told(s)}",
        "take that field out of the job, or run it on a cluster",
    ),
)
