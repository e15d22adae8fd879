"""`platform list`: every run on this machine and what serves, or the runs of a cluster; newest first."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from trainserve.cli.output import camel, columns, duration, emit, output_option, percent, say
from trainserve.cli.where import Name, kube_context_option
from trainserve.client.client import Client
from trainserve.client.cluster import naming
from trainserve.client.runs import DAMAGED, reference
from trainserve.machine.home import home
from trainserve.observe.summary import Summary

if TYPE_CHECKING:
    from trainserve.serve.servers import ServerRecord


@click.command("list", short_help="List runs and what serves.")
@click.option(
    "--namespace", type=Name(), metavar="NAME", help="Runs of this namespace of the cluster. [default: the context's]"
)
@click.option("-A", "--all-namespaces", is_flag=True, help="Runs of all namespaces of the cluster.")
@kube_context_option()
@output_option()
def list_command(namespace: str | None, all_namespaces: bool, kube_context: str | None, fmt: str) -> int:
    """List runs, newest first: state, progress, newest validation, restarts; then what serves.

    They are those of this machine, or where the current context is a cluster those of its namespace.
    """
    client = Client(kube_context=kube_context)
    place = naming.place(kube_context, namespace, asked=all_namespaces)
    runs = client.runs(namespace=namespace, all_namespaces=all_namespaces)
    for run in runs:
        if run["state"] == DAMAGED:
            say(f"{run['name']}: {run['message']}")
    if not runs and fmt == "table":
        where = f"namespace {place.namespace}" if place and not all_namespaces else "the cluster"
        say(f"no runs in {where if place else home()}; begin with: platform train --data FOLDER --nodes 4")
    servers = [] if place else [_server(server) for server in client.servers()]

    def table() -> str:
        tables = [columns([row(run) for run in runs]), columns([_server_row(server) for server in servers])]
        return "\n\n".join(text for text in tables if text)

    emit(fmt, {"runs": runs, "servers": servers}, table=table, names=[reference(run) for run in runs])
    return 0


def _server(record: ServerRecord) -> dict[str, Any]:
    """A server as documents have it: in camelCase, as everything in them."""
    return {camel(field): value for field, value in asdict(record).items()}


def _server_row(server: dict[str, Any]) -> dict[str, str]:
    models = ", ".join(f"{model} {version}" for model, version in server["models"].items())
    return {
        "server": server["name"],
        "engine": server["engine"],
        "models": models,
        "rest": server["restUrl"],
        "grpc": server["grpcTarget"] or "-",
    }


def row(run: Summary) -> dict[str, str]:
    """One line of the table."""
    namespace = run.get("namespace")
    return {
        **({"namespace": str(namespace)} if namespace else {}),
        "name": run["name"],
        "state": run["state"],
        "nodes": str(run["nodes"]),
        "epoch": f"{run['epoch']}/{run['epochs'] or '?'}" if run["epoch"] else "-",
        "step": f"{run['step']}/{run['steps'] or '?'}" if run["step"] else "-",
        "top-1": percent(run["top1"]),
        "eta": duration(run["etaSeconds"]),
        "restarts": str(run["restarts"]),
        "age": duration(time.time() - run["created"] if run["created"] else None),
    }
