"""`platform rm`: remove runs, with everything that they have made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trainserve.cli.complete import run_names
from trainserve.cli.output import emit, output_option
from trainserve.cli.progress import Display
from trainserve.cli.where import kube_context_option
from trainserve.client.client import Client
from trainserve.client.runs import reference
from trainserve.local.removal import Removed

if TYPE_CHECKING:
    from trainserve.client.cluster.remove import ClusterRemoved


@click.command("rm", short_help="Remove runs, with everything they made.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=run_names)
@click.option("--force", is_flag=True, help="Kill a run that goes on, then remove it.")
@kube_context_option()
@output_option("table", "json", "yaml", "name")
def rm_command(runs: tuple[str, ...], force: bool, kube_context: str | None, fmt: str) -> int:
    """Remove runs: spec, logs, checkpoints, bundle and archive. A .mar that was packed elsewhere stays.

    Of a run on a cluster the job and its pods go, and it is waited until they are gone; what it wrote into its output
    stays there, and it is said where.

    A run that goes on is refused without --force, and then none of the others is removed either. There is no way
    back: `platform package RUN -o FILE.mar` first keeps the model.
    """
    removed = Client(Display(), kube_context=kube_context).remove(*runs, force=force)
    rows = [_row(each) for each in removed]
    emit(
        fmt,
        rows,
        table=lambda: "",
        names=[reference(row) for row in rows],
    )
    return 0


def _row(each: Removed | ClusterRemoved) -> dict[str, Any]:
    if not isinstance(each, Removed):
        return {"name": each.name, "namespace": each.namespace, "output": each.output}
    return {
        "name": each.name,
        "folder": str(each.folder),
        "freedBytes": each.freed,
        "kept": None if each.kept is None else str(each.kept),
    }
