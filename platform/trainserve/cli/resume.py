"""`platform resume`: go on with a run from its newest checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import click

from trainserve.cli.complete import run_names
from trainserve.cli.follow import closing
from trainserve.cli.output import emit, output_option, say, to_yaml
from trainserve.cli.progress import Display
from trainserve.cli.signals import end_as_ctrl_c
from trainserve.cli.where import kube_context_option
from trainserve.client.client import Client
from trainserve.client.follow import Outcome


@click.command("resume", short_help="Go on with a run that was stopped, from its checkpoint.")
@click.argument("run", shell_complete=run_names)
@click.option("--detach", is_flag=True, help="Return at once; the run goes on in the background.")
@click.option("--dry-run", is_flag=True, help="Print the job that would go on, and change nothing.")
@kube_context_option()
@output_option("table", "json", "yaml", "name")
def resume_command(run: str, detach: bool, dry_run: bool, kube_context: str | None, fmt: str) -> int:
    """Go on with a run that was cancelled, interrupted or failed, from its newest checkpoint.

    The spec is the run's own. On a cluster Ctrl-C ends only the following, and a run that failed gets a new job of the
    same name and output. Exit status as of `platform train`.
    """
    return resume_run(run, detach=detach, dry_run=dry_run, fmt=fmt, kube_context=kube_context)


def resume_run(name: str, *, detach: bool, dry_run: bool, fmt: str, kube_context: str | None = None) -> int:
    """`platform resume` and `platform train --resume`."""
    if dry_run:
        job = Client(kube_context=kube_context).going_on(name)
        emit(fmt, job, table=lambda: to_yaml(job).rstrip(), names=[job["metadata"]["name"]])
        return 0
    return begin(
        lambda client: client.resume(name, detach=detach, must_succeed=False),
        detach=detach,
        fmt=fmt,
        kube_context=kube_context,
    )


def begin(start: Callable[[Client], Outcome], *, detach: bool, fmt: str, kube_context: str | None = None) -> int:
    """Start a run with what happens shown, and print how it ended, or that it goes on."""
    end_as_ctrl_c()
    with Display() as display:
        outcome = start(Client(display, kube_context=kube_context))
    name = outcome.name
    if detach and not outcome.code:
        say(f"{name} runs in the background:\n  platform logs -f {name}\n  platform wait {name}")
        say(f"  platform status {name}")
        emit(fmt, outcome.summary, table=lambda: "", names=[name])
        return 0
    return closing(outcome, fmt)
