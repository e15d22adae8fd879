"""A running job whose number of nodes or processes was changed: a new generation with the new world size."""

from __future__ import annotations

from collections.abc import Iterable

from trainserve.kube import names, replicas
from trainserve.kube.cluster import Manifest
from trainserve.kube.pods import env_value
from trainserve.operator.pytorchjob.draft import Draft
from trainserve.operator.pytorchjob.observed import Pod


def is_needed(job: Manifest, pods: Iterable[Pod]) -> bool:
    """Whether pods were told another size than the job now has. Elastic jobs take members in and out as they run."""
    if replicas.is_elastic(job):
        return False
    wanted = (str(replicas.total_replicas(job)), job["spec"].get("nprocPerNode"))
    return any(
        (env_value(pod.raw, names.ENV_PET_NNODES), env_value(pod.raw, names.ENV_PET_NPROC_PER_NODE)) != wanted
        for pod in pods
    )


def start_over(draft: Draft) -> None:
    """Free of charge: nothing failed."""
    draft.next_generation()
    size = f"It goes on with {replicas.total_replicas(draft.job)} nodes."
    message = f"{names.MESSAGE_SCALED.format(job=draft.name)} {size}"
    draft.condition(names.RESTARTING, names.REASON_SCALED, message, "Normal")
