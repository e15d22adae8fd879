"""`platform context`: by name, where runs go."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from trainserve.cli.output import columns, emit, output_option, say
from trainserve.client import context as contexts
from trainserve.client.context import Context


def context_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Contexts that there are."""
    return [CompletionItem(name) for name in contexts.read().each if name.startswith(incomplete)]


@click.group("context", short_help="Choose where runs go: this machine, or a cluster.")
def context_command() -> None:
    """Choose where runs go, so that it is typed once: this machine, or a namespace of a cluster.

    A context has a name, and what every run there needs: backend, context of the kubeconfig, namespace, image, output.
    They are kept in contexts.json in $TRAINSERVE_HOME; `local`, this machine, is always there.

    \b
    platform context set lab --backend kubernetes --namespace team --output pvc://runs
    platform context use lab
    platform train --data pvc://pictures --nodes 4
    """  # noqa: D301  backslash b is click's mark for lines that are not wrapped


@context_command.command("use", short_help="Make a context the one that counts.")
@click.argument("name", shell_complete=context_names)
def use_command(name: str) -> int:
    """Make NAME the context that counts where no flag says otherwise; `local` is this machine."""
    contexts.use(name)
    say(f"runs go to {name}: {_where(contexts.read().named(name))}")
    return 0


@context_command.command("list", short_help="List contexts.")
@output_option()
def list_command(fmt: str) -> int:
    """List contexts; the current one has a star."""
    known = contexts.read()
    documents = [_document(each, known.current) for each in known.each.values()]
    rows = [
        {
            "current": "*" if each.name == known.current else "",
            "name": each.name,
            "backend": each.backend,
            "kube-context": each.kube_context or "",
            "namespace": each.namespace or "",
            "output": each.output or "",
        }
        for each in known.each.values()
    ]
    emit(fmt, documents, table=lambda: columns(rows), names=list(known.each))
    return 0


@context_command.command("show", short_help="Show one context.")
@click.argument("name", required=False, shell_complete=context_names)
@output_option("yaml", "json", "name")
def show_command(name: str | None, fmt: str) -> int:
    """Show a context, the current one unless NAME is given."""
    known = contexts.read()
    found = known.named(name)
    emit(fmt, _document(found, known.current), table=lambda: "", names=[found.name])
    return 0


@context_command.command("set", short_help="Make or change a context.")
@click.argument("name", shell_complete=context_names)
@click.option("--backend", type=click.Choice(contexts.BACKENDS), help="Where runs go. [default: kubernetes]")
@click.option("--kube-context", metavar="NAME", help="Context of the kubeconfig. [default: its current one]")
@click.option("--namespace", metavar="NAME", help="Namespace. [default: the kubeconfig's]")
@click.option("--image", metavar="IMAGE", help="Image of training pods. [default: this version's]")
@click.option("--output", metavar="VOLUME|URL", help="Where runs write: pvc://CLAIM[/path] or a bucket's URL.")
@click.option("--data-store", metavar="VOLUME|URL", help="Where folders of this machine are pushed to.")
@click.option("--unset", "unset", multiple=True, metavar="FIELD", help="Forget a field, such as namespace. Repeats.")
@click.option("--use", "then_use", is_flag=True, help="Make it the current one, too.")
def set_command(name: str, unset: tuple[str, ...], then_use: bool, **values: Any) -> int:
    """Make the context NAME, or change what of it is given; the rest stays."""
    changed = contexts.change(name, values, unset)
    if then_use:
        contexts.use(name)
    current = contexts.read().current == name
    say(f"{name}: {_where(changed)}" + ("; runs go there" if current else f"\nuse it:\n  platform context use {name}"))
    return 0


@context_command.command("remove", short_help="Forget a context.")
@click.argument("name", shell_complete=context_names)
def remove_command(name: str) -> int:
    """Forget a context. Runs that were started with it go on."""
    left = contexts.remove(name)
    say(f"{name} is forgotten; the current context is {left.current}")
    return 0


def _document(context: Context, current: str) -> dict[str, Any]:
    return {**contexts.document(context), "current": context.name == current}


def _where(context: Context) -> str:
    if context.backend == contexts.LOCAL:
        return "this machine"
    cluster = (
        f"context {context.kube_context} of the kubeconfig" if context.kube_context else "the kubeconfig's cluster"
    )
    return f"{cluster}, namespace {context.namespace or 'of the kubeconfig'}"
