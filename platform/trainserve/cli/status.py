"""`platform status`: one run, whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainserve.cli.complete import run_names
from trainserve.cli.list_runs import row
from trainserve.cli.output import columns, emit, output_option
from trainserve.client.client import Client
from trainserve.client.runs import RunStatus
from trainserve.kube import names
from trainserve.local.records import can_begin

SHOWN = 10  # newest warnings in the table; -o json has all events


@click.command("status", short_help="Show one run: state, progress, ranks, what happened.")
@click.argument("run", shell_complete=run_names)
@output_option()
def status_command(run: str, fmt: str) -> int:
    """Show one run: state, progress, its pods and ranks with process ids, its conditions.

    The exit status tells whether the state could be read, not what it is.
    """
    found = Client().status(run)
    emit(fmt, found, table=lambda: _table(found), names=[found["name"]])
    return 0


def _table(run: RunStatus) -> str:
    parts = [columns([row(run)])]
    parts.append(columns([_condition(condition) for condition in run["conditions"]]))
    pids: dict[str, list[str]] = {rank["pod"]: [] for rank in run["ranks"]}
    for rank in run["ranks"]:
        pids[rank["pod"]].append(f"{rank['rank']}={rank['pid']}")
    parts.append(
        columns([{**_texts(pod), "ranks (rank=pid)": " ".join(pids.get(pod["pod"], []))} for pod in run["pods"]])
    )
    parts.append(columns([_texts(event) for event in run["events"] if event["type"] != "Normal"][-SHOWN:]))
    parts.append(f"folder  {run['folder']}" + (f"\narchive {run['archive']}" if run["archive"] else ""))
    if run["state"] in (names.SUSPENDED, names.INTERRUPTED) and (run["created"] or can_begin(Path(run["folder"]))):
        parts.append(f"resume it: platform resume {run['name']}")
    return "\n\n".join(part for part in parts if part)


def _texts(row: Any) -> dict[str, str]:
    return {key: str(value) for key, value in row.items()}


def _condition(condition: dict[str, Any]) -> dict[str, str]:
    return {
        "condition": condition["type"],
        "status": condition["status"],
        "since": condition.get("lastTransitionTime", ""),
        "message": condition.get("message", ""),
    }
