"""`platform operator adopt`: what a change-over from Kubeflow's Training Operator changes, and the change."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainserve.cli.output import emit, output_option, say
from trainserve.cli.paths import KubeconfigPath
from trainserve.errors import UserError

if TYPE_CHECKING:
    from trainserve.operator.adoption import Change


@click.command("adopt", short_help="Show what a change-over from Kubeflow's operator changes, and make it with --yes.")
@click.option(
    "--kubeconfig",
    type=KubeconfigPath(),
    metavar="FILE",
    help="Kubeconfig of an administrator. Default: what $KUBECONFIG names, else ~/.kube/config.",
)
@click.option("--context", metavar="NAME", help="Context of the kubeconfig. Default: its current one.")
@click.option("--dry-run", is_flag=True, help="Only show what would change, and ask the API server: the default.")
@click.option("--yes", is_flag=True, help="Make the changes.")
@output_option("table", "json", "yaml")
def adopt_command(kubeconfig: Path | None, context: str | None, dry_run: bool, yes: bool, fmt: str) -> int:
    """Show what changes where Kubeflow's Training Operator made the kind PyTorchJob, and make it with --yes.

    The kind's definition is replaced and Kubeflow's webhook for it taken out. Jobs stay, pods that run go on, other
    kinds of jobs are not touched. The API server is asked whether it would take each change before any is made.

    Exit status: 0, also where there is nothing to adopt; 3 where Kubeflow's operator still works and --yes is given, or
    the API server says no.
    """
    from trainserve.operator.adopt import adopt

    if dry_run and yes:
        raise UserError("--dry-run and --yes exclude each other", hint="--dry-run is the default")
    plan = adopt(None if kubeconfig is None else str(kubeconfig), context, yes=yes)
    rows = [asdict(change) for change in plan.changes]
    emit(fmt, rows, table=lambda: "\n".join(_lines(change) for change in plan.changes))
    if not plan.patches:
        say(plan.nothing())
    elif yes:
        say("changed; now: platform operator run")
    else:
        say("nothing was changed; the API server would take the changes: --yes makes them")
    return 0


def _lines(change: Change) -> str:
    """Sentences are long, so they stand below each other."""
    return f"{change.what}\n  now    {change.now}\n  after  {change.after}"
