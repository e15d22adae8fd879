"""`platform resume`: go on with a run from its newest checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import click

from trainserve.cli.complete import run_names
from trainserve.cli.follow import closing
from trainserve.cli.output import emit, output_option, say, to_yaml
from trainserve.cli.progress import Display
from trainserve.cli.signals import end_as_ctrl_c
from trainserve.client.client import Client
from trainserve.client.follow import Outcome
from trainserve.client.train import going_on, resumable


@click.command("resume", short_help="Go on with a run that was stopped, from its checkpoint.")
@click.argument("run", shell_complete=run_names)
@click.option("--detach", is_flag=True, help="Return at once; the run goes on in the background.")
@click.option("--dry-run", is_flag=True, help="Print the job that would go on, and change nothing.")
@output_option("table", "json", "yaml", "name")
def resume_command(run: str, detach: bool, dry_run: bool, fmt: str) -> int:
    """Go on with a run that was cancelled, interrupted or failed, from its newest checkpoint.

    The spec is the run's own. Exit status as of `platform train`.
    """
    return resume_run(run, detach=detach, dry_run=dry_run, fmt=fmt)


def resume_run(name: str, *, detach: bool, dry_run: bool, fmt: str) -> int:
    """`platform resume` and `platform train --resume`."""
    if dry_run:
        run = resumable(name)
        job = going_on(run)
        emit(fmt, job, table=lambda: to_yaml(job).rstrip(), names=[run.name])
        return 0
    return begin(lambda client: client.resume(name, detach=detach, must_succeed=False), detach=detach, fmt=fmt)


def begin(start: Callable[[Client], Outcome], *, detach: bool, fmt: str) -> int:
    """Start a run with what happens shown, and print how it ended, or that it goes on."""
    end_as_ctrl_c()
    with Display() as display:
        outcome = start(Client(display))
    name = outcome.name
    if detach and not outcome.code:
        say(f"{name} runs in the background:\n  platform logs -f {name}\n  platform wait {name}")
        say(f"  platform status {name}")
        emit(fmt, outcome.summary, table=lambda: "", names=[name])
        return 0
    return closing(outcome, fmt)
