"""The option that every verb about runs has: which cluster is meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class Name(click.ParamType[str]):
    """A name, and not an empty word: that would be the default, another place than was meant."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail(f"{value!r} is no name; is a variable of the shell not set?", param, ctx)
        return str(value)


def kube_context_option() -> Callable[[Any], Any]:
    """`--kube-context`; with it a bare name is one of that cluster."""
    return click.option(
        "--kube-context",
        type=Name(),
        metavar="NAME",
        help="The cluster, by its context in the kubeconfig. [default: the current context's]",
    )
