"""How one operator process is set up; `platform operator run` fills it in from flags and environment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What the process is told. An empty `namespaces` means all.

    `workers` jobs are worked on at the same time. `kubeconfig` and `context` are None where nobody gave them: then
    $KUBECONFIG, the pod's own account and ~/.kube/config are looked at, in this order.
    """

    kubeconfig: str | None = None
    context: str | None = None
    namespaces: tuple[str, ...] = ()
    workers: int = 8
