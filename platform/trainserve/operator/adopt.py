"""Taking a cluster over from Kubeflow's Training Operator: look, try out, change; `operator/adoption.py` says what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from trainserve.errors import EnvironmentProblem
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Manifest, NotFound, Page
from trainserve.kube.crd import CRD_NAME
from trainserve.kube.names import Kind
from trainserve.kube.outage import problem
from trainserve.operator import kubeflow
from trainserve.operator.adoption import Plan, make_plan

PAGE = 500


class Changeable(Protocol):
    """What this needs of an API server beyond `kube.cluster.Cluster`: to try a change out."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest: ...

    async def list(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
        continue_token: str = "",
    ) -> Page: ...

    async def patch(
        self, kind: Kind, namespace: str | None, name: str, patch: Manifest, *, dry_run: bool = False
    ) -> Manifest: ...


async def look(cluster: Changeable, clock: Callable[[], float] = time.time) -> Plan:
    """What there is to adopt. Raises ApiError."""
    crd = await _get(cluster, names.CRD, CRD_NAME)
    webhooks = await _get(cluster, names.VALIDATING_WEBHOOKS, names.KUBEFLOW_WEBHOOKS)
    jobs = await _all_jobs(cluster) if crd is not None else []
    return make_plan(crd, webhooks, await kubeflow.look(cluster, clock), jobs)


async def change(cluster: Changeable, plan: Plan, *, dry_run: bool) -> None:
    """Make the plan's changes, or let the API server say whether it would take them. Raises ApiError.

    Each is refused as a conflict where the object has changed since `look`. Made twice, or in part, they can be made
    again.
    """
    for kind, name, patch in plan.patches:
        await cluster.patch(kind, None, name, patch, dry_run=dry_run)


def adopt(kubeconfig: str | None, context: str | None, *, yes: bool) -> Plan:
    """Look, and try the change out at the API server; with `yes` make it.

    Raises EnvironmentProblem where Kubeflow's operator works and `yes` is given, and where the API server says no, or
    nothing.
    """
    return asyncio.run(_adopt(kubeconfig, context, yes=yes))


async def _adopt(kubeconfig: str | None, context: str | None, *, yes: bool) -> Plan:
    from trainserve.kube.client import connect

    async with connect(kubeconfig, context) as cluster:
        try:
            plan = await look(cluster)
            if yes and plan.patches and plan.in_the_way():
                rival = plan.in_the_way()[0]
                raise EnvironmentProblem(
                    f"Kubeflow's Training Operator still works: {rival}; nothing was changed",
                    hint=f"stop it first: {rival.stop_command()}; or restrict it to a namespace: --namespace",
                )
            await change(cluster, plan, dry_run=True)
            if yes:
                await change(cluster, plan, dry_run=False)
        except (ApiError, OSError) as error:
            work = "adopting is an administrator's work: it reads and patches CustomResourceDefinitions and webhooks"
            raise problem(error, work) from error
    return plan


async def _get(cluster: Changeable, kind: Kind, name: str) -> Manifest | None:
    try:
        return await cluster.get(kind, None, name)
    except NotFound:
        return None


async def _all_jobs(cluster: Changeable) -> list[Manifest]:
    jobs, token = [], ""
    while True:
        page = await cluster.list(names.PYTORCHJOB, None, limit=PAGE, continue_token=token)
        jobs += page.items
        token = page.continue_token
        if not token:
            return jobs
