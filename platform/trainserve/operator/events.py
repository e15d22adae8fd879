"""Events about a job: one Event object a fact, with a count of how often it was told."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterable, Sequence

from trainserve.kube import names
from trainserve.kube.cluster import AlreadyExists, ApiError, Cluster, Manifest, NotFound
from trainserve.kube.moments import rfc3339
from trainserve.kube.outage import level
from trainserve.operator.pytorchjob.decision import Delete, Event

log = logging.getLogger(__name__)

MOST_NAMES = 8  # of objects in one message


def event_manifest(job: Manifest, event: Event, now: float) -> Manifest:
    """The core/v1 Event. Its name follows from what it says, so that saying it again finds it."""
    metadata = job["metadata"]
    said = "\n".join((metadata["uid"], event.type, event.reason, event.message))
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    moment = rfc3339(now)
    return {
        "apiVersion": names.EVENT.api_version,
        "kind": names.EVENT.kind,
        "metadata": {"name": f"{metadata['name']}.{digest}", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": names.PYTORCHJOB.api_version,
            "kind": names.PYTORCHJOB.kind,
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
        "source": {"component": names.EVENT_COMPONENT},
    }


def of_created(manifests: Sequence[Manifest]) -> list[Event]:
    """One Event a kind for what one pass created, where upstream writes one an object."""
    created = ((str(manifest["kind"]), str(manifest["metadata"]["name"])) for manifest in manifests)
    return _aggregated(names.REASON_SUCCESSFUL_CREATE, "Created", created)


def of_deleted(deletes: Sequence[Delete]) -> list[Event]:
    """One Event a kind for what one pass deleted; a job that goes tells nobody."""
    deleted = ((delete.kind.kind, delete.name) for delete in deletes if delete.kind != names.PYTORCHJOB)
    return _aggregated(names.REASON_SUCCESSFUL_DELETE, "Deleted", deleted)


def _aggregated(reason: str, verb: str, objects: Iterable[tuple[str, str]]) -> list[Event]:
    """`objects`: kind and name of each, those of a kind together."""
    told = []
    for kind, same in itertools.groupby(objects, key=lambda each: each[0]):
        all_names = [name for _, name in same]
        some = all_names if len(all_names) <= MOST_NAMES else [*all_names[: MOST_NAMES - 1], "...", all_names[-1]]
        what = f"{kind.lower()}:" if len(all_names) == 1 else f"{len(all_names)} {kind.lower()}s:"
        told.append(Event("Normal", f"{reason}{kind}", f"{verb} {what} {', '.join(some)}"))
    return told


async def tell(cluster: Cluster, job: Manifest, event: Event, now: float) -> None:
    """Create the Event, or count it once more. An Event that cannot be told is logged: it decides nothing."""
    log.info("%s/%s: %s: %s", job["metadata"]["namespace"], job["metadata"]["name"], event.reason, event.message)
    manifest = event_manifest(job, event, now)
    namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
    try:
        try:
            await cluster.create(names.EVENT, namespace, manifest)
        except AlreadyExists:
            count = int((await cluster.get(names.EVENT, namespace, name)).get("count") or 1)
            again = {"count": count + 1, "lastTimestamp": rfc3339(now)}
            await cluster.patch(names.EVENT, namespace, name, again)
    except NotFound:
        log.debug("the event %s expired as it was to be counted", name)
    except (ApiError, OSError) as error:
        log.log(level(error), "the event %s: %s could not be told: %s", event.reason, event.message, error)
