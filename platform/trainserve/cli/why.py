"""`platform why`: what went wrong with a run, who began it, and the one thing to do."""

from __future__ import annotations

from datetime import datetime

import click

from trainserve.cli.complete import run_names
from trainserve.cli.output import columns, emit, output_option
from trainserve.client.client import Client
from trainserve.observe.why.diagnose import Diagnosis


@click.command("why", short_help="Say why a run failed or stands still, and what to do.")
@click.argument("run", shell_complete=run_names)
@output_option()
def why_command(run: str, fmt: str) -> int:
    """Say why a run failed, stopped or stands still: the first rank that failed, how, its last words, and what to do.

    The exit status tells whether the run could be read, not how it is.
    """
    found = Client().why(run)
    emit(fmt, found.to_dict(), table=lambda: render(found), names=[found.cause])
    return 0


def render(found: Diagnosis) -> str:
    """For people: the sentence first, then the evidence, and the advice last, where the eye rests."""
    parts = [f"{found.run} ({found.state}): {found.title}"]
    facts = []
    if found.pod:
        where = ", ".join(filter(None, (f"rank {found.rank}" if found.rank is not None else "", found.pod)))
        on = f" on {found.node}" if found.node else ""
        facts.append(f"first     {where}, generation {found.generation}{on}")
    if found.exit:
        facts.append(f"how       {found.exit}")
    facts += [f"{'own code' if n == 0 else '':<10}{frame}" for n, frame in enumerate(found.own_frames)]
    memory = [
        f"{found.memory['oomKills']} killed for want of memory (cgroup oom_kill)" if "oomKills" in found.memory else "",
        f"the largest process of the node had {found.memory['peakMib']} MiB" if "peakMib" in found.memory else "",
    ]
    if any(memory):
        facts.append(f"memory    {', '.join(filter(None, memory))}")
    facts += [f"note      {note}" for note in found.notes]
    if facts:
        parts.append("\n".join(facts))
    if found.excerpt:
        parts.append("\n".join(f"  | {line}" for line in found.excerpt))
    if found.victims:
        parts.append(
            "its victims:\n" + columns([{"rank": victim.who, "ended": victim.how} for victim in found.victims])
        )
    if found.restarts:
        rows = [
            {
                "generation": str(restart.generation),
                "ended": "-" if restart.time is None else f"{datetime.fromtimestamp(restart.time):%Y-%m-%d %H:%M:%S}",
                "restart": "counted" if restart.counted else "free",
                "cause": restart.cause,
                "what": restart.title,
            }
            for restart in found.restarts
        ]
        parts.append("restarts:\n" + columns(rows))
    parts.append(f"do:\n  {found.advice}")
    return "\n\n".join(parts)
