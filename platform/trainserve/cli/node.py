"""`platform node`: this machine as a node of a cluster, whose pods are processes."""

from __future__ import annotations

from pathlib import Path

import click

from trainserve import log
from trainserve.cli.paths import FilePath, KubeconfigPath
from trainserve.errors import UserError


@click.group("node", short_help="Make this machine a node of a cluster: pods run as processes.")
def node_command() -> None:
    """Make this machine a node of a cluster: pods run as processes."""


@node_command.command("run", short_help="Register this machine, and run the pods that are bound to it.")
@click.option(
    "--kubeconfig",
    type=KubeconfigPath(),
    metavar="FILE",
    help="Kubeconfig. Default: $KUBECONFIG, the pod's account, ~/.kube/config.",
)
@click.option("--context", metavar="NAME", help="Context of the kubeconfig. Default: its current one.")
@click.option("--name", metavar="NAME", help="Name of the node. Default: this machine's.")
@click.option(
    "--namespace",
    "namespaces",
    metavar="NAME[,NAME...]",
    multiple=True,
    help="Take pods of this namespace; repeatable.",
)
@click.option("--all-namespaces", is_flag=True, help="Take pods of all namespaces.")
@click.option("--cpu", metavar="AMOUNT", help="Cores to offer. Default: those this process may use.")
@click.option("--memory", metavar="AMOUNT", help="Memory to offer, such as 16Gi. Default: what this process may use.")
@click.option(
    "--resource",
    "resources",
    metavar="NAME=AMOUNT",
    multiple=True,
    help="More to offer, such as example.com/disk=2. GPUs are offered as nvidia.com/gpu unless told otherwise.",
)
@click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="A label of the node; repeatable.")
@click.option(
    "--taint", "taints", metavar="NAME[=VALUE]:EFFECT", multiple=True, help="A taint of the node; repeatable."
)
@click.option(
    "--root",
    metavar="DIR",
    type=FilePath(),
    help="Folder of the pods' logs. Default: nodes/NAME in $TRAINSERVE_HOME or ~/.trainserve.",
)
@click.option(
    "--stop-grace",
    metavar="SECONDS",
    type=click.IntRange(0, 86400),
    default=120,
    show_default=True,
    help="Longest time for pods to end when the node is stopped.",
)
@click.option("--allow-root", is_flag=True, help="Run pods as root, where this is started by root.")
def run_command(
    kubeconfig: Path | None,
    context: str | None,
    name: str | None,
    namespaces: tuple[str, ...],
    all_namespaces: bool,
    cpu: str | None,
    memory: str | None,
    resources: tuple[str, ...],
    labels: tuple[str, ...],
    taints: tuple[str, ...],
    root: Path | None,
    stop_grace: int,
    allow_root: bool,
) -> int:
    """Register this machine at a Kubernetes API server and run the pods that its scheduler binds here.

    A pod's containers are processes of this user: no image, no isolation, no limits. Whoever may create pods in the
    namespaces named here can run any command as this user. SIGTERM ends it in order: pods stop within their grace
    period and are told as taken away by the node, which is then NotReady.

    Any pod may be bound here, unless --taint keeps those away that do not tolerate it. One of another namespace waits,
    and is told so.
    """
    from trainserve.local import nodeprocess, nodeshape
    from trainserve.operator.settings import parse_namespaces

    if bool(namespaces) == all_namespaces:
        raise UserError(
            "whose pods are to run here?" if not namespaces else "--namespace and --all-namespaces exclude each other",
            hint="--namespace NAME, once or more, or --all-namespaces",
        )
    places = parse_namespaces(namespaces, "--namespace")
    log.setup()
    name = nodeprocess.default_name() if name is None else name
    node = nodeshape.shape(
        name,
        cpu=cpu,
        memory=memory,
        resources=nodeshape.pairs("--resource", resources),
        labels=nodeshape.pairs("--label", labels),
        taints=[nodeshape.taint(each) for each in taints],
    )
    return nodeprocess.run(
        node,
        kubeconfig=None if kubeconfig is None else str(kubeconfig),
        context=context,
        root=root or nodeprocess.default_root(name),
        namespaces=places,
        allow_root=allow_root,
        stop_grace_s=float(stop_grace),
    )
