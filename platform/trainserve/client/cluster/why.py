"""The evidence that an API server holds about a run, and the diagnosis made of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from trainserve.client.cluster import events
from trainserve.client.cluster.connect import Session, in_words
from trainserve.client.cluster.run import ClusterRun, job_of, spec_of, state, summary
from trainserve.kube import names, replicas
from trainserve.kube.cluster import ApiError, Forbidden, Manifest, NotFound
from trainserve.kube.names import POD
from trainserve.observe.why.diagnose import Diagnosis, diagnose
from trainserve.observe.why.evidence import LOG_BYTES, Evidence, PodEvidence, pod_of

LOGS = 8  # pods whose logs are read: those that failed, in the order of their ends
TAIL = 400  # lines of each


async def why(session: Session, run: ClusterRun) -> Diagnosis:
    """Why `run` is as it is. Raises UserError where there is no such run."""
    return diagnose(await gather(session, run))


async def gather(session: Session, run: ClusterRun) -> Evidence:
    """Everything of the cluster that can tell a cause. What this user may not look at is a note."""
    job = await job_of(session, run)
    notes: list[str] = []
    pods = (await session.cluster.list(POD, run.place.namespace, labels={names.LABEL_JOB_NAME: run.name})).items
    told = await _told(session, run, job, notes)
    claims = await _claims(session, run, pods, notes)
    first = sorted((pod_of(pod) for pod in pods), key=lambda pod: pod.time)
    wanted = [pod.name for pod in first if pod.failed][:LOGS]
    logs = {name: await _log(session, run, name, notes) for name in wanted}
    return Evidence(
        run=str(run),
        state=state(job),
        now=time.time(),
        status=job.get("status") or {},
        pods=[_pod(job, pod, logs.get(pod["metadata"]["name"], ""), told, claims) for pod in pods],
        spec=_spec(job),
        progress=dict(summary(job)),
        job=job,
        kubectl=run.place.kubectl(),
        notes=list(dict.fromkeys(notes)),
    )


def _pod(job: Manifest, pod: Manifest, log: str, told: Sequence[Manifest], claims: Mapping[str, str]) -> PodEvidence:
    uid = pod["metadata"]["uid"]
    own = [event for event in told if (event.get("involvedObject") or {}).get("uid") == uid]
    found = pod_of(pod, log, _ranks(job, pod), own)
    wrong = [claims[name] for name in _claims_of(pod) if name in claims]
    if wrong and found.phase == "Pending" and not found.node:
        return replace(found, reason=names.REASON_UNSCHEDULABLE, message=f"{wrong[0]}. {found.message}".strip())
    return found


async def _claims(session: Session, run: ClusterRun, pods: Sequence[Manifest], notes: list[str]) -> dict[str, str]:
    """What is wrong with claims that pods without a node want, by name: a scheduler of gangs does not say it."""
    waiting = [pod for pod in pods if not pod["spec"].get("nodeName")]
    found: dict[str, str] = {}
    for name in sorted({name for pod in waiting for name in _claims_of(pod)}):
        try:
            claim = await session.cluster.get(names.CLAIM, run.place.namespace, name)
        except NotFound:
            found[name] = f'persistentvolumeclaim "{name}" not found'
        except Forbidden as error:
            notes.append(f"without claims: {in_words(error).message}")
            break
        else:
            phase = (claim.get("status") or {}).get("phase")
            if phase == "Lost":
                found[name] = f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume'
            elif phase != "Bound" and not await _waits_for_its_pod(session, claim):
                found[name] = f'claim "{name}" is {phase}: unbound immediate PersistentVolumeClaims'
    return found


async def _waits_for_its_pod(session: Session, claim: Manifest) -> bool:
    """Whether a claim gets its volume only when the first pod that wants it has a node."""
    name = claim["spec"].get("storageClassName")
    try:
        storage = await session.cluster.get(names.STORAGE_CLASS, None, name) if name else {}
    except ApiError:  # not there, or not for this user to see
        return False
    return storage.get("volumeBindingMode") == "WaitForFirstConsumer"


def _claims_of(pod: Manifest) -> list[str]:
    volumes = pod["spec"].get("volumes") or []
    return [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]


async def _told(session: Session, run: ClusterRun, job: Manifest, notes: list[str]) -> list[Manifest]:
    try:
        return await events.told(session, run, job)
    except Forbidden as error:
        notes.append(f"without Kubernetes' events: {in_words(error).message}")
        return []


async def _log(session: Session, run: ClusterRun, pod: str, notes: list[str]) -> str:
    """The end of the training container's log; "" where its node does not give it."""
    query = {"container": names.CONTAINER, "tailLines": str(TAIL), "limitBytes": str(LOG_BYTES)}
    text = b""
    try:
        async for piece in session.cluster.read_log(run.place.namespace, pod, query):
            text += piece
    except Forbidden as error:
        notes.append(f"without logs: {in_words(error).message}")
    except ApiError as error:  # gone with its node, or never started
        notes.append(f"without the log of pod {pod}: {error.message}")
    return text.decode("utf-8", "replace")


def _ranks(job: Manifest, pod: Manifest) -> tuple[int, ...]:
    """The ranks of a pod of a job of fixed size; () where they are not known."""
    labels = pod["metadata"].get("labels") or {}
    processes = str(job["spec"].get("nprocPerNode") or "1")
    index = labels.get(names.LABEL_REPLICA_INDEX, "")
    if replicas.is_elastic(job) or not processes.isdigit() or not index.isdigit():
        return ()
    kind = labels.get(names.LABEL_REPLICA_TYPE, "").capitalize()
    node = replicas.node_rank(job, kind, int(index))
    return tuple(range(node * int(processes), (node + 1) * int(processes)))


def _spec(job: Manifest) -> Mapping[str, Any]:
    """The Classifier's `spec` that the pods were given, for advice in its numbers; {} of a job without one."""
    try:
        document = json.loads(spec_of(job))
    except ValueError:
        return {}
    spec = document.get("spec") if isinstance(document, dict) else None
    return spec if isinstance(spec, dict) else {}
