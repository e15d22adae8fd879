"""`platform list`: every run on this machine, newest first."""

from __future__ import annotations

import time

import click

from trainserve.cli.follow import summary
from trainserve.cli.output import columns, duration, emit, output_option, percent, say
from trainserve.local import rundir
from trainserve.observe.summary import Summary


@click.command("list", short_help="List runs and what serves.")
@output_option()
def list_command(fmt: str) -> int:
    """List runs, newest first: state, progress, best validation so far, restarts."""
    runs = sorted((summary(run) for run in rundir.all_runs()), key=lambda run: -(run["created"] or 0))
    if not runs and fmt == "table":
        say(f"no runs in {rundir.home()}; begin with: platform train --data FOLDER --nodes 4")
    emit(fmt, runs, table=lambda: columns([row(run) for run in runs]), names=[run["name"] for run in runs])
    return 0


def row(run: Summary) -> dict[str, str]:
    """One line of the table."""
    return {
        "name": run["name"],
        "state": run["state"],
        "nodes": str(run["nodes"]),
        "epoch": f"{run['epoch']}/{run['epochs']}" if run["epoch"] else "-",
        "step": f"{run['step']}/{run['steps']}" if run["step"] else "-",
        "top-1": percent(run["top1"]),
        "eta": duration(run["etaSeconds"]),
        "restarts": str(run["restarts"]),
        "age": duration(time.time() - run["created"] if run["created"] else None),
    }
