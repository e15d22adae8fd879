"""`platform operator`: the controller of PyTorchJobs as a process, against a real API server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from trainserve import log
from trainserve.kube import names
from trainserve.operator.settings import Settings


@click.group("operator", short_help="Run the controller of PyTorchJobs against a Kubernetes API server.")
def operator_command() -> None:
    """Run the controller of PyTorchJobs against a Kubernetes API server."""


def _option(flag: str, **settings: Any) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """An option that the environment can give too: `--a-b` is PLATFORM_OPERATOR_A_B."""
    name = flag.split("/", maxsplit=1)[0].removeprefix("--").replace("-", "_").upper()
    return click.option(flag, envvar=f"{names.ENV_OPERATOR_PREFIX}{name}", show_envvar=True, **settings)


@operator_command.command("run")
@_option("--kubeconfig", metavar="FILE", help="Kubeconfig. Default: $KUBECONFIG, the pod's account, ~/.kube/config.")
@_option("--context", metavar="NAME", help="Context of the kubeconfig. Default: its current one.")
@_option("--namespace", metavar="NAME[,NAME...]", multiple=True, help="Namespaces to work in. Default: all.")
@_option("--workers", type=click.IntRange(1, 256), default=8, show_default=True, help="Jobs at the same time.")
def run_command(kubeconfig: str | None, context: str | None, namespace: tuple[str, ...], workers: int) -> int:
    """Keep the PyTorchJobs of a cluster moving until SIGTERM or SIGINT."""
    from trainserve.operator import process

    log.setup()
    namespaces = tuple(dict.fromkeys(name for given in namespace for name in given.split(",") if name))
    return process.run(Settings(kubeconfig, context, namespaces, workers))
