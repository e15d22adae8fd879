"""`platform status`: one run, whole."""

from __future__ import annotations

from typing import Any

import click

from trainserve.cli.follow import summary
from trainserve.cli.list_runs import row
from trainserve.cli.output import columns, emit, output_option
from trainserve.kube import names
from trainserve.local import rundir

SHOWN = 10  # newest warnings in the table; -o json has all events


@click.command("status", short_help="Show one run: state, progress, ranks, what happened.")
@click.argument("run")
@output_option()
def status_command(run: str, fmt: str) -> int:
    """Show one run: state, progress, its pods and ranks with process ids, its conditions.

    The exit status tells whether the state could be read, not what it is.
    """
    found = rundir.open_run(run)
    numbers = summary(found)
    job = found.job() or {}
    status = job.get("status", {})
    pods = [_pod(pod) for pod in found.pods()]
    ranks = found.ranks()
    told = sorted((_event(event) for event in found.objects(names.EVENT)), key=lambda event: event["since"])
    whole = {
        **numbers,
        "folder": str(found.path),
        "cause": status.get("cause"),
        "generation": status.get("generation"),
        "conditions": status.get("conditions", []),
        "events": told,
        "pods": pods,
        "ranks": ranks,
    }

    def table() -> str:
        parts = [columns([row(numbers)])]
        if status.get("conditions"):
            parts.append(columns([_condition(condition) for condition in status["conditions"]]))
        pids: dict[str, list[str]] = {rank["pod"]: [] for rank in ranks}
        for rank in ranks:
            pids[rank["pod"]].append(f"{rank['rank']}={rank['pid']}")
        if pods:
            lines = [{k: str(v) for k, v in pod.items()} for pod in pods]
            parts.append(columns([{**line, "ranks (rank=pid)": " ".join(pids.get(line["pod"], []))} for line in lines]))
        warnings = [event for event in told if event["type"] != "Normal"]
        if warnings:
            parts.append(columns([{key: str(value) for key, value in event.items()} for event in warnings[-SHOWN:]]))
        parts.append(f"folder  {found.path}" + (f"\narchive {numbers['archive']}" if numbers["archive"] else ""))
        if numbers["state"] in (names.SUSPENDED, names.INTERRUPTED):
            parts.append(f"resume it: platform train --resume {found.name}")
        return "\n\n".join(parts)

    emit(fmt, whole, table=table, names=[found.name])
    return 0


def _pod(pod: dict[str, Any]) -> dict[str, Any]:
    status = pod.get("status", {})
    state = ((status.get("containerStatuses") or [{}])[0]).get("state", {})
    ended = state.get("terminated", {})
    waiting = state.get("waiting", {})
    return {
        "pod": pod["metadata"]["name"],
        "phase": "Terminating" if "deletionTimestamp" in pod["metadata"] else status.get("phase", "Pending"),
        "exit": ended.get("exitCode", ""),
        "reason": status.get("reason") or ended.get("reason") or waiting.get("reason") or "",
    }


def _event(event: dict[str, Any]) -> dict[str, Any]:
    return {
        "since": event.get("lastTimestamp") or event.get("eventTime") or "",
        "type": event.get("type", ""),
        "reason": event.get("reason", ""),
        "object": event.get("involvedObject", {}).get("name", ""),
        "count": event.get("count", 1),
        "message": event.get("message", ""),
    }


def _condition(condition: dict[str, Any]) -> dict[str, str]:
    return {
        "condition": condition["type"],
        "status": condition["status"],
        "since": condition.get("lastTransitionTime", ""),
        "message": condition.get("message", ""),
    }
