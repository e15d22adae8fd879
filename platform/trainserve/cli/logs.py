"""`platform logs`: what the ranks wrote, from the first line, all generations."""

from __future__ import annotations

import click

from trainserve.cli.complete import run_names
from trainserve.cli.output import say
from trainserve.client.client import Client
from trainserve.errors import EXIT_INTERRUPTED
from trainserve.local import rundir


@click.command("logs", short_help="Print what the ranks of a run wrote.")
@click.argument("run", shell_complete=run_names)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--rank", type=click.IntRange(min=0), help="Only this rank's pod.")
def logs_command(run: str, follow: bool, rank: int | None) -> int:
    """Print what the ranks of a run wrote, each line with its pod. Ends by itself when the run ends.

    Exit status: 0 whatever became of the run, 130 Ctrl-C, which stops following and not the run.
    """
    try:
        for line in Client().logs(run, follow=follow, rank=rank):
            click.echo(str(line))
    except KeyboardInterrupt:
        found = rundir.open_run(run)
        if found.alive():
            say(f"{found.name} goes on:\n  platform status {found.name}\n  platform cancel {found.name}")
        return EXIT_INTERRUPTED
    return 0
