"""The option that every verb about runs has: which cluster is meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def kube_context_option() -> Callable[[Any], Any]:
    """`--kube-context`; with it a bare name is one of that cluster."""
    return click.option(
        "--kube-context",
        metavar="NAME",
        help="The cluster, by its context in the kubeconfig. [default: the current context's]",
    )
