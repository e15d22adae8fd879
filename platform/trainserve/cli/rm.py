"""`platform rm`: remove runs, with everything that they have made."""

from __future__ import annotations

from typing import Any

import click

from trainserve.cli.complete import run_names
from trainserve.cli.output import emit, output_option
from trainserve.cli.progress import Display
from trainserve.client.client import Client
from trainserve.local.removal import Removed


@click.command("rm", short_help="Remove runs, with everything they made.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=run_names)
@click.option("--force", is_flag=True, help="Kill a run that goes on, then remove it.")
@output_option("table", "json", "yaml", "name")
def rm_command(runs: tuple[str, ...], force: bool, fmt: str) -> int:
    """Remove runs: spec, logs, checkpoints, bundle and archive. A .mar that was packed elsewhere stays.

    A run that goes on is refused without --force, and then none of the others is removed either. There is no way
    back: `platform package RUN -o FILE.mar` first keeps the model.
    """
    removed = Client(Display()).remove(*runs, force=force)
    rows = [_row(each) for each in removed]
    emit(fmt, rows, table=lambda: "", names=[each.name for each in removed])
    return 0


def _row(each: Removed) -> dict[str, Any]:
    return {
        "name": each.name,
        "folder": str(each.folder),
        "freedBytes": each.freed,
        "kept": None if each.kept is None else str(each.kept),
    }
