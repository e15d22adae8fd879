"""`platform cancel`: checkpoint, stop, keep everything."""

from __future__ import annotations

import click

from trainserve.cli.complete import run_names
from trainserve.cli.output import emit, output_option, say
from trainserve.cli.progress import Display
from trainserve.cli.where import kube_context_option
from trainserve.client.client import Client
from trainserve.client.runs import DAMAGED, reference
from trainserve.errors import EXIT_INTERRUPTED
from trainserve.kube import names


@click.command("cancel", short_help="Stop a run after a checkpoint; it can be resumed.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=run_names)
@click.option("--now", is_flag=True, help="Kill its processes at once; the newest checkpoint stays.")
@kube_context_option()
@output_option("table", "json", "yaml", "name")
def cancel_command(runs: tuple[str, ...], now: bool, kube_context: str | None, fmt: str) -> int:
    """Stop runs after a checkpoint, and wait until no process of them is left.

    Everything is kept; `platform resume RUN` goes on from there. Exit status: 0 also for a run that was not going,
    130 when Ctrl-C ended the waiting: the runs go on stopping.
    """
    try:
        results = Client(Display(), kube_context=kube_context).cancel(*runs, now=now)
    except KeyboardInterrupt:  # what goes on was told
        return EXIT_INTERRUPTED
    emit(fmt, results, table=lambda: "", names=[reference(result) for result in results])
    for result in results:
        if result["state"] == DAMAGED:
            say(f"no process of {result['name']} is left, but it cannot be read: {result['message']}")
        elif result["state"] not in (names.SUCCEEDED, names.FAILED):
            step = result["checkpointStep"]
            kept = "there is no checkpoint yet" if step is None else f"the checkpoint of step {step} is kept"
            say(f"{reference(result)} is stopped; {kept}. Resume it:\n  platform resume {reference(result)}")
    return 0
