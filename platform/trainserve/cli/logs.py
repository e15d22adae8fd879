"""`platform logs`: what the ranks wrote, from the first line, all generations."""

from __future__ import annotations

import click

from trainserve.cli.complete import run_names
from trainserve.cli.output import say
from trainserve.cli.progress import Display
from trainserve.cli.where import kube_context_option
from trainserve.client.client import Client
from trainserve.client.follow import Outcome
from trainserve.errors import EXIT_INTERRUPTED, EXIT_OK


@click.command("logs", short_help="Print what the ranks of a run wrote.")
@click.argument("run", shell_complete=run_names)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--rank", type=click.IntRange(min=0), help="Only this rank's pod.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Begin with the newest N lines of each pod.")
@click.option("-p", "--previous", is_flag=True, help="Only what was written before the newest start.")
@kube_context_option()
def logs_command(
    run: str, follow: bool, rank: int | None, tail: int | None, previous: bool, kube_context: str | None
) -> int:
    """Print what the ranks of a run wrote, each line with its pod. Ends by itself when the run ends.

    On a cluster it waits while pods are pending, and says for what.

    Exit status: 0; with -f that of the run, as of `platform train`; 130 Ctrl-C, which stops following and not the run.
    """
    client = Client(Display(), kube_context=kube_context)
    try:
        for line in client.logs(run, follow=follow, rank=rank, tail=tail, previous=previous):
            click.echo(str(line))
        return told_end(client.outcome(run)) if follow else EXIT_OK
    except KeyboardInterrupt:
        if words := client.goes_on(run):
            say(words)
        return EXIT_INTERRUPTED


def told_end(outcome: Outcome) -> int:
    """Of a followed run that did not end well, how it ended: what its ranks wrote may not say so."""
    if outcome.code:
        reason = outcome.cause or outcome.supervisor_failed or outcome.summary["message"]
        say(f"{outcome.name}: {outcome.state}: {reason}")
    return outcome.code
