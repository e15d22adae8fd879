"""Deleting a job's children side by side: a gang of many pods holds its devices until the last one is asked to go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from trainserve.kube.cluster import ApiError, Cluster, Conflict, NotFound
from trainserve.operator.creating import LARGEST_BATCH
from trainserve.operator.pytorchjob.decision import Delete


@dataclass
class Removed:
    """What became of a job's deletes: those that were done, and the first that failed with what the server said."""

    done: list[Delete] = field(default_factory=list)
    failed: tuple[Delete, ApiError | OSError] | None = None


async def delete_all(cluster: Cluster, namespace: str, deletes: Sequence[Delete]) -> Removed:
    """All of them, also where one fails. Raises nothing of its own."""
    removed = Removed()
    for begin in range(0, len(deletes), LARGEST_BATCH):
        batch = deletes[begin : begin + LARGEST_BATCH]
        answers = await asyncio.gather(
            *(_delete(cluster, namespace, delete) for delete in batch), return_exceptions=True
        )
        for delete, answer in zip(batch, answers, strict=True):
            if isinstance(answer, (ApiError, OSError)):
                removed.failed = removed.failed or (delete, answer)
            elif isinstance(answer, BaseException):
                raise answer
            elif answer:
                removed.done.append(delete)
    return removed


async def _delete(cluster: Cluster, namespace: str, delete: Delete) -> bool:
    """False where it is gone, or what is there by this name is another one."""
    try:
        await cluster.delete(delete.kind, namespace, delete.name, uid=delete.uid, grace_period_s=delete.grace_s)
    except (NotFound, Conflict):
        return False
    return True
