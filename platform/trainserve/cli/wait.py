"""`platform wait`: block until a run is in a state, for scripts."""

from __future__ import annotations

from typing import Any, get_args

import click

from trainserve.cli.complete import run_names
from trainserve.cli.duration import length_of_time
from trainserve.cli.list_runs import row
from trainserve.cli.output import columns, emit, output_option
from trainserve.cli.progress import Display
from trainserve.cli.where import kube_context_option
from trainserve.client.client import Client
from trainserve.client.runs import reference
from trainserve.client.waiting import Wanted


@click.command("wait", short_help="Wait until a run has succeeded, or is otherwise as asked.")
@click.argument("run", shell_complete=run_names)
@click.option(
    "--for",
    "wanted",
    type=click.Choice(get_args(Wanted), case_sensitive=False),
    default="Succeeded",
    show_default=True,
    help="Running is reached by a run that succeeded meanwhile, too; Ended is any end.",
)
@click.option(
    "--timeout", type=length_of_time, metavar="TIME", help="Longest wait, such as 90s, 5m, 1h30m. [default: none]"
)
@kube_context_option()
@output_option()
def wait_command(run: str, wanted: Any, timeout: float | None, kube_context: str | None, fmt: str) -> int:
    """Wait until a run has succeeded, or is as --for says.

    Exit status: 0 it is so; 1 the run has ended otherwise; 124 it was not so within --timeout; 2 there is no such run;
    130 Ctrl-C, which ends the waiting and not the run.
    """
    found = Client(Display(), kube_context=kube_context).wait(run, wanted, timeout_s=timeout)
    emit(fmt, found, table=lambda: columns([row(found)]), names=[reference(found)])
    return 0
