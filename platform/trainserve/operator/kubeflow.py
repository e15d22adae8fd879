"""Whether Kubeflow's Training Operator works on the same jobs: then this controller does not.

Nothing in a job can keep Kubeflow's operator off it (its `managedBy` knows itself and Kueue only), so two controllers
share a cluster by namespaces, or not at all. It is known by its Deployment in whatever namespace, and by its Lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from trainserve.errors import EnvironmentProblem
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Forbidden, Manifest, NotFound, Page
from trainserve.kube.crd import CRD_NAME, is_ours, unknown_fields
from trainserve.kube.moments import unix
from trainserve.kube.names import Kind
from trainserve.kube.outage import level

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
RETRY_S = 2.0  # while the API server has not answered yet
_CLOCKS_DIFFER_S = 60.0  # a Lease's times are its holder's


class Readable(Protocol):
    """What this needs of an API server."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest: ...

    async def list(self, kind: Kind, namespace: str | None, *, fields: Mapping[str, str] | None = None) -> Page: ...


@dataclass(frozen=True)
class Rival:
    """Kubeflow's operator, as far as it works on PyTorchJobs. `watches`: its one namespace, or None for all."""

    kind: Kind
    namespace: str
    name: str
    watches: str | None = None

    def __str__(self) -> str:
        where = "all namespaces" if self.watches is None else f"the namespace {self.watches}"
        return f"{self.kind} {self.namespace}/{self.name} (works in {where})"

    def meets(self, namespaces: Sequence[str]) -> bool:
        """Whether it works in one of `namespaces`; none given means all."""
        return self.watches is None or not namespaces or self.watches in namespaces

    def stop_command(self) -> str:
        return f"kubectl scale deployment {names.KUBEFLOW_DEPLOYMENT} --namespace {self.namespace} --replicas 0"


def rivals(deployments: Iterable[Manifest], leases: Iterable[Manifest], now: float) -> list[Rival]:
    """Those that work, or may begin to at any time. `now` in unix seconds."""
    found = [_of_deployment(each) for each in deployments if _is_wanted(each) and _runs_pytorchjobs(each)]
    known = {rival.namespace for rival in found}
    for lease in leases:
        namespace, name = lease["metadata"]["namespace"], lease["metadata"]["name"]
        if _is_held(lease, now) and namespace not in known:
            found.append(Rival(names.LEASE, namespace, name))
    return found


async def look(cluster: Readable, clock: Callable[[], float] = time.time) -> list[Rival]:
    """Those in the whole cluster. Raises ApiError, Forbidden where the account may not look."""
    of_deployment = {"metadata.name": names.KUBEFLOW_DEPLOYMENT}
    of_lease = {"metadata.name": names.KUBEFLOW_LEASE}
    deployments = await cluster.list(names.DEPLOYMENT, None, fields=of_deployment)
    leases = await cluster.list(names.LEASE, None, fields=of_lease)
    return rivals(deployments.items, leases.items, clock())


class Lookout:
    """Ends a controller of `namespaces` (none: all) where it cannot do its work: now, or from later on.

    That is where Kubeflow's operator works there, and where the kind is Kubeflow's or too old: then what the controller
    writes into a job's status would be refused.
    """

    def __init__(self, cluster: Readable, namespaces: Sequence[str]) -> None:
        self._cluster = cluster
        self._namespaces = namespaces
        self._looked = False
        self._told = False

    async def look(self) -> None:
        """Raises EnvironmentProblem. What the account may not look at goes into the log once."""
        try:
            await self._look_at_rivals()
            await self._look_at_kind()
        except Forbidden as error:
            if not self._told:
                log.info("whether Kubeflow's operator is here cannot be seen by this account: %s", error)
            self._told = True
        except (ApiError, OSError) as error:
            log.log(level(error), "whether Kubeflow's operator is here is not known yet: %s", error)
            return
        self._looked = True

    async def _look_at_rivals(self) -> None:
        found = [rival for rival in await look(self._cluster) if rival.meets(self._namespaces)]
        if found:
            raise EnvironmentProblem(
                f"Kubeflow's Training Operator works here: {found[0]}. Two controllers of one job would undo each "
                "other's work",
                hint=f"stop it: {found[0].stop_command()}; or give each its own namespaces (--namespace, here and "
                "there). `platform operator adopt` says what a change-over changes",
            )

    async def _look_at_kind(self) -> None:
        try:
            crd = await self._cluster.get(names.CRD, None, CRD_NAME)
        except NotFound:
            log.warning("the kind %s is not installed; hint: kubectl apply -k manifests/base/crds", names.PYTORCHJOB)
            return
        if not is_ours(crd):
            raise EnvironmentProblem(
                f"the kind {CRD_NAME} is not trainserve's here: what this controller writes would be refused",
                hint="`platform operator adopt` says what a change-over from Kubeflow's changes",
            )
        if unknown := unknown_fields(crd):
            raise EnvironmentProblem(
                f"the kind {CRD_NAME} is older than this controller: it does not know status.{min(unknown)}",
                hint="kubectl apply -k manifests/base/crds",
            )

    async def run(self) -> None:
        """Look again and again. Raises EnvironmentProblem as `look` does, and never returns."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S if self._looked else RETRY_S)
            await self.look()


def _is_wanted(deployment: Manifest) -> bool:
    return int((deployment.get("spec") or {}).get("replicas", 1)) > 0 or _pods(deployment) > 0


def _pods(deployment: Manifest) -> int:
    return int((deployment.get("status") or {}).get("replicas") or 0)


def _runs_pytorchjobs(deployment: Manifest) -> bool:
    """By its flags `--enable-scheme`: without any it works on every kind."""
    kinds = [kind.lower() for container in _containers(deployment) for kind in _flag(container, "enable-scheme")]
    return not kinds or names.PYTORCHJOB.kind.lower() in kinds


def _of_deployment(deployment: Manifest) -> Rival:
    metadata = deployment["metadata"]
    watched = [word for container in _containers(deployment) for word in _watched(container)]
    return Rival(names.DEPLOYMENT, metadata["namespace"], metadata["name"], watched[-1] if watched else None)


def _watched(container: Manifest) -> list[str]:
    """Its flag goes before the variable that gives the flag's default; empty means all."""
    of_env = [
        str(entry.get("value") or "")
        for entry in container.get("env") or []
        if entry.get("name") == names.ENV_KUBEFLOW_NAMESPACE
    ]
    told = [*of_env, *_flag(container, "namespace")][-1:]
    return [word for word in told if word]


def _containers(deployment: Manifest) -> list[Manifest]:
    found: list[Manifest] = deployment["spec"]["template"]["spec"]["containers"]
    return found


def _flag(container: Manifest, name: str) -> list[str]:
    """Values of a flag of Go's: `-name value`, `--name=value`."""
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    found = []
    for word, following in zip(words, [*words, ""][1:], strict=True):
        flag, equals, value = word.partition("=")
        if flag in {f"-{name}", f"--{name}"}:
            found.append(value if equals else following)
    return found


def _is_held(lease: Manifest, now: float) -> bool:
    spec = lease.get("spec") or {}
    renewed = unix(spec.get("renewTime"))
    if not spec.get("holderIdentity") or renewed is None:
        return False
    return now < renewed + float(spec.get("leaseDurationSeconds") or 0) + _CLOCKS_DIFFER_S
