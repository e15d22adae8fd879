"""`platform gc`: what can be thrown away, and, with --yes, throw it away."""

from __future__ import annotations

from typing import Any

import click

from trainserve.cli.duration import length_of_time
from trainserve.cli.output import columns, emit, output_option, say
from trainserve.client.client import Client
from trainserve.errors import EXIT_ENVIRONMENT, EXIT_OK
from trainserve.local.garbage import KEEP, Garbage, Item
from trainserve.machine.home import home
from trainserve.machine.usage import size_words


@click.command("gc", short_help="Show what can be thrown away, and throw it away with --yes.")
@click.option("--yes", is_flag=True, help="Throw it away. Without it nothing is changed.")
@click.option(
    "--older-than",
    "older_than_s",
    type=length_of_time,
    default="7d",
    show_default=True,
    metavar="TIME",
    help="Checkpoints and logs of runs that ended so long ago, such as 12h or 0s.",
)
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=KEEP,
    show_default=True,
    metavar="N",
    help="Newest checkpoints of a succeeded run that stay beside its best; 0: not even that.",
)
@output_option("table", "json", "yaml", "name")
def gc_command(yes: bool, older_than_s: float, keep: int, fmt: str) -> int:
    """Show what can be thrown away, with its size and why; throw it away with --yes.

    Old checkpoints of succeeded runs, torn checkpoints, logs of earlier starts, and what killed processes left: files
    half-written or half-removed, temporary folders, records of servers. Bundles, archives, runs that go on, and every
    checkpoint of a run that is not finished stay. Whole runs are removed by `platform rm`. Exit status: 3 when the disk
    did not let everything go.
    """
    client = Client()
    found = client.gc(yes=yes, older_than_s=older_than_s, keep=keep)
    emit(fmt, _document(found, yes), table=lambda: columns([_row(item) for item in found.items]), names=_paths(found))
    if not found.items:
        say(f"nothing to throw away in {home()}")
    elif not yes:
        say(f"{size_words(found.bytes)} in {len(found.items)} things; nothing was changed: add --yes to remove them")
    else:
        say(f"{len(found.removed)} removed, {size_words(found.freed)} freed")
        refused = dict(found.refused)
        for item in found.items:
            if item in refused:
                say(f"{item.path} stays: {refused[item].strerror or refused[item]}")
            elif item not in found.removed:
                say(f"{item.path} stays: it is in use again, or gone already")
    return EXIT_ENVIRONMENT if found.refused else EXIT_OK


def _paths(found: Garbage) -> list[str]:
    return [str(item.path) for item in found.items]


def _row(item: Item) -> dict[str, str]:
    path = item.path.relative_to(home()) if item.path.is_relative_to(home()) else item.path
    return {
        "kind": item.kind,
        "run": item.run or "-",
        "size": size_words(item.bytes),
        "path": str(path),
        "why": item.why,
    }


def _document(found: Garbage, yes: bool) -> dict[str, Any]:
    items = [
        {
            "kind": item.kind,
            "run": item.run,
            "bytes": item.bytes,
            "path": str(item.path),
            "why": item.why,
            "removed": item in found.removed,
        }
        for item in found.items
    ]
    return {"items": items, "bytes": found.bytes, "deleted": yes, "freedBytes": found.freed}
