"""One run on a cluster, whole."""

from __future__ import annotations

from typing import NotRequired

from trainserve.client.cluster.connect import Session
from trainserve.client.cluster.events import told
from trainserve.client.cluster.logs import in_order
from trainserve.client.cluster.pending import waits_for
from trainserve.client.cluster.run import ClusterRun, has_ended, job_of, output_of, summary
from trainserve.client.runs import PodRow, RunStatus, event_row, pod_row
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.names import POD


class ClusterPodRow(PodRow):
    """One pod of a run on a cluster."""

    node: str  # "" while it has none
    generation: str
    restarts: int  # of its containers, in place


class ClusterStatus(RunStatus):
    """What `platform status -o json` prints of a run on a cluster. `folder` is where its output is."""

    namespace: str
    waiting: str | None  # for what its pods wait
    context: NotRequired[str]  # where the current one is another


async def status(session: Session, run: ClusterRun) -> ClusterStatus:
    """The run as it is now."""
    job = await job_of(session, run)
    pods = (await session.cluster.list(POD, run.place.namespace, labels={names.LABEL_JOB_NAME: run.name})).items
    events = await told(session, run, job)
    found, rows = job.get("status") or {}, [_pod(pod) for pod in in_order(pods, None)]
    return ClusterStatus(
        **summary(job, run.place),
        folder=output_of(job) or "",
        cause=found.get("cause"),
        generation=found.get("generation"),
        conditions=found.get("conditions") or [],
        events=[event_row(event) for event in events],
        pods=[*rows],
        ranks=[],
        waiting=None if has_ended(job) else waits_for(job, pods, events),
    )


def _pod(pod: Manifest) -> ClusterPodRow:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return ClusterPodRow(
        **pod_row(pod),
        node=pod["spec"].get("nodeName") or "",
        generation=(pod["metadata"].get("labels") or {}).get(names.LABEL_GENERATION, ""),
        restarts=sum(int(each.get("restartCount", 0)) for each in statuses),
    )
