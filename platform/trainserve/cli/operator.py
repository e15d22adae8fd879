"""`platform operator`: the controller of PyTorchJobs as a process, against a real API server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import click

from trainserve import log
from trainserve.cli.duration import length_of_time
from trainserve.cli.environment import ByEnvironment
from trainserve.cli.operator_adopt import adopt_command
from trainserve.cli.operator_check import check_command
from trainserve.cli.paths import KubeconfigPath
from trainserve.errors import UserError
from trainserve.kube import names
from trainserve.operator.lease import Timing
from trainserve.operator.settings import (
    METRICS_ADDRESS,
    GangSetting,
    ProgressBy,
    Settings,
    parse_address,
    parse_namespaces,
)


@click.group("operator", short_help="Run the controller of PyTorchJobs against a Kubernetes API server.")
def operator_command() -> None:
    """Run the controller of PyTorchJobs against a Kubernetes API server."""


operator_command.add_command(adopt_command)
operator_command.add_command(check_command)


def _option(flag: str, **settings: Any) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """An option that the environment can give too: `--a-b` is PLATFORM_OPERATOR_A_B."""
    name = flag.split("/", maxsplit=1)[0].removeprefix("--").replace("-", "_").upper()
    settings = {"show_default": "default" in settings, **settings}
    return click.option(flag, envvar=f"{names.ENV_OPERATOR_PREFIX}{name}", show_envvar=True, **settings)


@operator_command.command("run", cls=ByEnvironment)
@_option(
    "--kubeconfig",
    type=KubeconfigPath(),
    metavar="FILE",
    help="Kubeconfig. Default: what $KUBECONFIG names, else the account of the pod it runs in, else ~/.kube/config.",
)
@_option("--context", metavar="NAME", help="Context of the kubeconfig. Default: its current one.")
@_option(
    "--namespace",
    metavar="NAME[,NAME...]",
    multiple=True,
    help="Work in this namespace only; can be given several times. Default: in all.",
)
@_option("--workers", type=click.IntRange(1, 256), default=8, help="Jobs that are worked on at the same time.")
@_option(
    "--resync",
    type=length_of_time,
    metavar="TIME",
    default="10m",
    help="Look at every job again after so long, even if nothing was heard of it.",
)
@_option(
    "--leader-elect/--no-leader-elect",
    default=True,
    help="Of several operators only the one that holds the Lease works; the others stand by.",
)
@_option(
    "--leader-elect-namespace",
    metavar="NAME",
    help="Where the Lease is. Default: the pod's namespace, else the first --namespace, else default.",
)
@_option(
    "--leader-elect-lease-duration",
    type=length_of_time,
    metavar="TIME",
    default="15s",
    help="Others take over when the Lease was not renewed for so long; whole seconds.",
)
@_option(
    "--leader-elect-renew-deadline",
    type=length_of_time,
    metavar="TIME",
    default="10s",
    help="Stop working when the Lease could not be renewed for so long.",
)
@_option(
    "--leader-elect-retry-period",
    type=length_of_time,
    metavar="TIME",
    default="2s",
    help="Time between two attempts to get or renew the Lease.",
)
@_option(
    "--metrics-address",
    metavar="HOST:PORT",
    default=METRICS_ADDRESS,
    help="Where /metrics, /healthz and /readyz are; 0.0.0.0:8080 is on all of the machine's addresses, 0 nowhere.",
)
@_option(
    "--progress",
    type=click.Choice(get_args(ProgressBy)),
    default="pod-ip",
    help="How running pods that declare a port named progress are asked how far they are: at their address, or through "
    "the API server, for which the installed role is not enough: it opens every port of every pod.",
)
@_option(
    "--gang",
    type=click.Choice(get_args(GangSetting)),
    default="auto",
    help="Who places the pods of a job together, or not at all. auto: Kubernetes itself where the API server has "
    "PodGroups, else nobody.",
)
@_option("--log-format", type=click.Choice(["text", "json"]), default="text", help="json: one object a line.")
@_option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="What is logged, to stderr.",
)
def run_command(
    kubeconfig: Path | None,
    context: str | None,
    namespace: tuple[str, ...],
    workers: int,
    resync: float,
    leader_elect: bool,
    leader_elect_namespace: str | None,
    leader_elect_lease_duration: float,
    leader_elect_renew_deadline: float,
    leader_elect_retry_period: float,
    metrics_address: str,
    progress: ProgressBy,
    gang: GangSetting,
    log_format: Literal["text", "json"],
    log_level: str,
) -> int:
    """Keep the PyTorchJobs of a cluster moving until SIGTERM or SIGINT.

    Every option can be given by an environment variable instead; the command line goes first, and a variable that is
    empty counts as not set. Requests to the API
    server are not throttled here: the server does that itself (429), and is listened to.

    Exit status: 0 after SIGTERM or SIGINT (passes in progress are finished, the Lease is given back; a second signal
    ends it at once, with 1), 2 for a wrong option, 3 where no cluster is known or the address for metrics is taken. An
    API server that is away ends nothing: it is asked again.
    """
    if resync < 1:
        raise UserError(f"--resync {resync:g}s: must be at least 1s", hint="10m is the default")
    timing = Timing(leader_elect_lease_duration, leader_elect_renew_deadline, leader_elect_retry_period)
    given = () if leader_elect_namespace is None else (leader_elect_namespace,)
    places = parse_namespaces(given, "--leader-elect-namespace")
    if len(places) > 1:
        raise UserError(f"--leader-elect-namespace {leader_elect_namespace}: the Lease is in one", hint="name one")
    settings = Settings(
        kubeconfig=None if kubeconfig is None else str(kubeconfig),
        context=context,
        namespaces=parse_namespaces(namespace, "--namespace"),
        workers=workers,
        resync_s=resync,
        lease=timing if leader_elect else None,
        lease_namespace=places[0] if places else None,
        metrics=parse_address(metrics_address),
        progress=progress,
        gang=gang,
    )
    from trainserve.operator import process

    log.setup(log_level.upper(), form=log_format)
    return process.run(settings)
