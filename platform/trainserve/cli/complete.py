"""What the shell completes: names of runs and servers, fields of the spec. Each must answer within a blink."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem


def run_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Runs on this machine."""
    from trainserve.local.rundir import all_runs

    return _beginning(incomplete, (run.name for run in all_runs()))


def server_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Servers that run, and the models they serve."""
    from trainserve.serve.servers import running_servers

    servers = running_servers()
    return _beginning(incomplete, sorted({name for server in servers for name in (server.name, *server.models)}))


def runs_and_archives(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Runs; where no run begins so, the shell's own completion of files."""
    found = run_names(context, parameter, incomplete)
    return found or [CompletionItem(incomplete, type="file")]


def settings(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """`FIELD=` for --set."""
    return [CompletionItem(f"{item.value}=") for item in _beginning(incomplete, _fields())]


def field_paths(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Fields and sections of a Classifier."""
    leaves = list(_fields())
    sections = {leaf.rsplit(".", 1)[0] for leaf in leaves if "." in leaf}
    return _beginning(incomplete, [*sorted(sections), *leaves])


def _fields() -> Iterable[str]:
    from trainserve.spec.load import fields

    return [".".join(map(str, path)).removeprefix("spec.") for path, _ in fields()]


def _beginning(incomplete: str, words: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]
