"""The runs of a namespace, or of all."""

from __future__ import annotations

from trainserve.client.cluster.connect import Place, Session
from trainserve.client.cluster.run import ClusterSummary, no_kind, summary
from trainserve.kube import names
from trainserve.kube.cluster import NotFound

PAGE = 500


async def listing(session: Session, place: Place, *, all_namespaces: bool = False) -> list[ClusterSummary]:
    """Newest first, of the place's namespace or of all. Raises EnvironmentProblem without the platform's kinds."""
    namespace = None if all_namespaces else place.namespace
    found: list[ClusterSummary] = []
    token = ""
    try:
        while True:
            page = await session.cluster.list(names.PYTORCHJOB, namespace, limit=PAGE, continue_token=token)
            found += [summary(job, place) for job in page.items]
            token = page.continue_token
            if not token:
                break
    except NotFound:
        raise no_kind() from None
    return sorted(found, key=lambda each: -(each["created"] or 0))
