"""`platform events`: what Kubernetes says that has happened to a run and its pods."""

from __future__ import annotations

import json

import click

from trainserve.cli.complete import run_names
from trainserve.cli.output import columns, emit, output_option, printable, say
from trainserve.cli.progress import Display
from trainserve.cli.where import kube_context_option
from trainserve.client.client import Client
from trainserve.client.runs import EventRow
from trainserve.errors import EXIT_INTERRUPTED


@click.command("events", short_help="Show what has happened to a run and its pods.")
@click.argument("run", shell_complete=run_names)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends; -o json is one object a line then.")
@kube_context_option()
@output_option("table", "json", "yaml")
def events_command(run: str, follow: bool, kube_context: str | None, fmt: str) -> int:
    """Show the Kubernetes Events of a run, its pods, services and group, oldest first.

    A cluster forgets them after an hour. With -f exit status 0 once the run has ended, however; 130 is Ctrl-C.
    """
    client = Client(Display(), kube_context=kube_context)
    if not follow:
        rows = list(client.told(run))
        if not rows and fmt == "table":
            say("no events; a cluster forgets them after an hour")
        emit(fmt, rows, table=lambda: columns([_texts(row) for row in rows]))
        return 0
    try:
        for row in client.told(run, follow=True):
            click.echo(json.dumps(row, ensure_ascii=False) if fmt == "json" else _line(row, fmt))
    except KeyboardInterrupt:
        if words := client.goes_on(run):
            say(words)
        return EXIT_INTERRUPTED
    return 0


def _line(row: EventRow, fmt: str) -> str:
    if fmt == "yaml":
        from trainserve.spec.write import to_yaml

        return f"---\n{to_yaml(dict(row))}".rstrip()
    times = f" ({row['count']} times)" if row["count"] > 1 else ""
    return printable(f"{row['since']}  {row['type']:<7}  {row['reason']}  {row['object']}: {row['message']}{times}")


def _texts(row: EventRow) -> dict[str, str]:
    return {key: str(value) for key, value in row.items()}
