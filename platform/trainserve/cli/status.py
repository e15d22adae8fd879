"""`platform status`: one run, whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainserve.cli.complete import run_names
from trainserve.cli.list_runs import row
from trainserve.cli.output import columns, emit, output_option
from trainserve.cli.where import kube_context_option
from trainserve.client.client import Client
from trainserve.client.runs import PodRow, RunStatus, reference
from trainserve.kube import names
from trainserve.local.records import can_begin

SHOWN = 10  # newest warnings in the table; -o json has all events


@click.command("status", short_help="Show one run: state, progress, ranks, what happened.")
@click.argument("run", shell_complete=run_names)
@kube_context_option()
@output_option()
def status_command(run: str, kube_context: str | None, fmt: str) -> int:
    """Show one run: state, progress, its pods and ranks with process ids, its conditions, for what it waits.

    The exit status tells whether the state could be read, not what it is.
    """
    found = Client(kube_context=kube_context).status(run)
    emit(fmt, found, table=lambda: _table(found), names=[reference(found)])
    return 0


def _table(run: RunStatus) -> str:
    on_cluster = bool(run.get("namespace"))
    parts = [columns([row(run)])]
    parts.append(columns([_condition(condition) for condition in run["conditions"]]))
    parts.append(columns([_pod(pod, run) for pod in run["pods"]]))
    waiting = dict(run).get("waiting")
    if waiting and waiting not in [condition.get("message") for condition in run["conditions"]]:
        parts.append(f"waits   {waiting}")
    parts.append(columns([_texts(event) for event in run["events"] if event["type"] != "Normal"][-SHOWN:]))
    if run["folder"]:
        parts.append(f"{'output ' if on_cluster else 'folder '} {run['folder']}")
    if run["archive"]:
        parts[-1] += f"\narchive {run['archive']}"
    if run["state"] in (names.SUSPENDED, names.INTERRUPTED) and (run["created"] or can_begin(Path(run["folder"]))):
        parts.append(f"resume it: platform resume {reference(run)}")
    return "\n\n".join(part for part in parts if part)


def _pod(pod: PodRow, run: RunStatus) -> dict[str, str]:
    if run.get("namespace"):  # what a process is called on a node says nothing to anybody here
        return _texts(pod)
    pids = [f"{rank['rank']}={rank['pid']}" for rank in run["ranks"] if rank["pod"] == pod["pod"]]
    return {**_texts(pod), "ranks (rank=pid)": " ".join(pids)}


def _texts(row: Any) -> dict[str, str]:
    return {key: str(value) for key, value in row.items()}


def _condition(condition: dict[str, Any]) -> dict[str, str]:
    return {
        "condition": condition["type"],
        "status": condition["status"],
        "since": condition.get("lastTransitionTime", ""),
        "message": condition.get("message", ""),
    }
