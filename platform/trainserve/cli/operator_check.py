"""`platform operator check`: whether an installed operator works."""

from __future__ import annotations

from pathlib import Path

import click

from trainserve.cli.paths import KubeconfigPath
from trainserve.errors import UserError
from trainserve.operator.settings import parse_namespaces


@click.command("check", short_help="See whether an installed operator answers, and its API server takes a job.")
@click.option(
    "--kubeconfig",
    type=KubeconfigPath(),
    metavar="FILE",
    help="Kubeconfig. Default: what $KUBECONFIG names, else the account of the pod it runs in, else ~/.kube/config.",
)
@click.option("--context", metavar="NAME", help="Context of the kubeconfig. Default: its current one.")
@click.option(
    "--namespace", metavar="NAME", default="default", show_default=True, help="Where a PyTorchJob is tried out."
)
@click.option("--url", metavar="URL", help="Where the operator's /readyz is. Default: it is not asked.")
def check_command(kubeconfig: Path | None, context: str | None, namespace: str, url: str | None) -> int:
    """See whether an installed operator answers, and whether its API server takes a PyTorchJob.

    The job is a dry run on the server: it goes through the kind's validation and all admission, and is not made. `helm
    test` runs this in a pod.

    Exit status: 0 where all is well, 2 for a wrong option, 3 for the first thing that is not well.
    """
    from trainserve.operator.check import check

    places = parse_namespaces((namespace,), "--namespace")
    if len(places) > 1:
        raise UserError(f"--namespace {namespace}: a job is in one", hint="name one")
    check(None if kubeconfig is None else str(kubeconfig), context, places[0], url=url, tell=click.echo)
    return 0
