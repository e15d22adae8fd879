"""Which names are of runs on a cluster: those that say so, and bare ones under a context that is a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainserve.client.cluster.connect import Place
    from trainserve.client.cluster.run import ClusterRun


def find(name: str, kube_context: str | None = None) -> ClusterRun | None:
    """The run, if it is one on a cluster. `kube_context`: of the kubeconfig, instead of the current context's.

    Raises UserError for what can be no name.
    """
    from trainserve.client import context
    from trainserve.client.runs import CLUSTER_SCHEME
    from trainserve.local.rundir import SCHEME

    if name.startswith(SCHEME):
        return None

    current = context.read().named()
    if not name.startswith(CLUSTER_SCHEME) and current.backend != "kubernetes" and kube_context is None:
        return None
    from trainserve.client.cluster.run import parse

    chosen = kube_context or current.kube_context
    asked = kube_context is not None
    return parse(name, chosen, namespace=current.namespace, is_asked_for=asked)


def parted(names: Sequence[str], kube_context: str | None = None) -> tuple[list[ClusterRun], list[str]]:
    """The runs on clusters, each once, and the names of the others."""
    found = {name: find(name, kube_context) for name in names}
    there = list(dict.fromkeys(run for run in found.values() if run is not None))
    return there, [name for name, run in found.items() if run is None]


def place(kube_context: str | None = None, namespace: str | None = None, *, asked: bool = False) -> Place | None:
    """Where runs are listed, if that is a cluster: the current context's, or another that is `asked` for."""
    from trainserve.client import context

    current = context.read().named()
    if current.backend != "kubernetes" and kube_context is None and namespace is None and not asked:
        return None
    from trainserve.client.cluster.connect import Place, default_namespace

    chosen = kube_context or current.kube_context
    wanted = namespace or current.namespace or default_namespace(chosen)
    return Place(chosen, wanted, is_asked_for=kube_context is not None)
