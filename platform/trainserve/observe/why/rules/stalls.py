"""What the watchdog ended."""

from __future__ import annotations

from trainserve.errors import EXIT_STALLED
from trainserve.observe.why.conditions import both, code, logs, says, told
from trainserve.observe.why.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        "frozen",
        both(code(EXIT_STALLED), says(r"is frozen")),
        lambda s: f"{s.who} was frozen: a signal (SIGSTOP), a debugger or Ctrl-Z had stopped its process",
        lambda s: (
            f"find out who stops processes on {s.pod.node if s.pod and s.pod.node else 'that machine'}, then "
            + s.resume()
        ),
    ),
    Rule(
        "stalled-data",
        both(code(EXIT_STALLED), logs(r"in _(try_)?get_data|in _next_data|torch/utils/data/dataloader\.py")),
        lambda s: f"{s.who} waited in vain for pictures: a data worker hangs",
        lambda s: s.again("--workers 0") + "  (then the stack names the picture or the file system that hangs)",
    ),
    Rule(
        "stalled-collective",
        both(code(EXIT_STALLED), says(r"waiting for the other ranks")),
        lambda s: f"no rank got on: {s.who} waited for the others, and none of them was seen to hang",
        lambda s: (
            f"compare where the ranks wait: platform logs {s.evidence.run}; if they wait in different places, "
            "they do not make the same calls; if in the same, look at the network between the nodes"
        ),
    ),
    Rule(
        "stalled",
        code(EXIT_STALLED),
        lambda s: f"{s.who} hung: {told(s)}",
        lambda s: f"{s.logs()} shows the stack of every thread; if steps are that slow, raise train.stallSeconds",
    ),
)
