"""Creating a job's children: side by side, in batches that grow, so that a refusal costs one request and not hundreds.

The pattern of the slow start in Kubernetes' own controllers. A name that is taken is looked at: it may be our own
object from a moment ago, one that is going, or somebody else's.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from trainserve.kube import names
from trainserve.kube.cluster import AlreadyExists, ApiError, Cluster, Manifest, NotFound
from trainserve.operator.pytorchjob.decision import Create
from trainserve.operator.pytorchjob.reading import controller

LEFTOVER_RETRY_S = 1.0  # a job of the same name was deleted just now, and its children are being collected
LARGEST_BATCH = 16  # requests of one job on their way at a time


@dataclass
class Created:
    """What became of a job's creates, up to the first that failed.

    manifests   as the server answered them
    again_s     seconds after which to try again where a name is not free yet
    failed      the create that failed, and what the server said
    """

    manifests: list[Manifest] = field(default_factory=list)
    again_s: float | None = None
    failed: tuple[Create, ApiError | OSError] | None = None


async def create_all(cluster: Cluster, job: Manifest, creates: Sequence[Create]) -> Created:
    """Kind after kind in the order given; nothing is begun any more after a failure. Raises nothing of its own."""
    done = Created()
    for _, same in itertools.groupby(creates, key=lambda create: create.kind):
        left, size = list(same), 1
        while left and done.failed is None:
            batch, left = left[:size], left[size:]
            answers = await asyncio.gather(*(_create(cluster, job, create) for create in batch), return_exceptions=True)
            for create, answer in zip(batch, answers, strict=True):
                _note(done, create, answer)
            size = min(2 * size, LARGEST_BATCH)
    return done


def _note(done: Created, create: Create, answer: Manifest | float | BaseException | None) -> None:
    if isinstance(answer, (ApiError, OSError)):
        done.failed = done.failed or (create, answer)
    elif isinstance(answer, BaseException):
        raise answer
    elif isinstance(answer, dict):
        done.manifests.append(answer)
    elif answer is not None:
        done.again_s = answer if done.again_s is None else min(done.again_s, answer)


async def _create(cluster: Cluster, job: Manifest, create: Create) -> Manifest | float | None:
    """What was created; or None where it is there already, or in how many seconds its name may be free."""
    try:
        return await cluster.create(create.kind, job["metadata"]["namespace"], create.manifest)
    except AlreadyExists:
        return await _recognise(cluster, job, create)


async def _recognise(cluster: Cluster, job: Manifest, create: Create) -> float | None:
    name = create.manifest["metadata"]["name"]
    try:
        there = await cluster.get(create.kind, job["metadata"]["namespace"], name)
    except NotFound:
        return 0.0
    owner = controller(there)
    if owner.get("uid") == job["metadata"]["uid"]:
        wanted = (create.manifest["metadata"].get("labels") or {}).get(names.LABEL_GENERATION)
        has = (there["metadata"].get("labels") or {}).get(names.LABEL_GENERATION)
        if has == wanted:
            return None
        if not _is_seen(there):
            raise AlreadyExists(
                "there is one of this name that is this job's and lacks the label "
                f"{names.LABEL_OPERATOR_NAME}={names.OPERATOR_NAME}. hint: delete it, or give it the label back"
            )
        return LEFTOVER_RETRY_S
    predecessor = owner.get("kind") == names.PYTORCHJOB.kind and owner.get("name") == job["metadata"]["name"]
    if predecessor or "deletionTimestamp" in there["metadata"]:
        return LEFTOVER_RETRY_S
    raise AlreadyExists(
        "there is one of this name that does not belong to this job. hint: delete it, or give the job another name"
    )


def _is_seen(there: Manifest) -> bool:
    """Whether the controller's caches have it, which go by a label; what is going needs nobody."""
    labels = there["metadata"].get("labels") or {}
    return labels.get(names.LABEL_OPERATOR_NAME) == names.OPERATOR_NAME or "deletionTimestamp" in there["metadata"]
