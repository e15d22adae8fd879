"""What only the API server knows of a job before it is created: whether its claims fit, and whether its pods may be.

A job is taken as it is; what is wrong with its pods would come out minutes later, in an event. So they are tried
here, with dryRun, as the controller will make them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from trainserve.client.cluster.connect import Session, may_not
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names, pods
from trainserve.kube.cluster import ApiError, BadRequest, Forbidden, Invalid, Manifest, NotFound
from trainserve.spec import derive, location
from trainserve.spec.classifier import Classifier
from trainserve.spec.location import Claim
from trainserve.spec.pytorchjob import default

log = logging.getLogger(__name__)

_MANY_WRITE = "ReadWriteMany"
_MANY_READ = "ReadOnlyMany"
_ONE_POD = "ReadWriteOncePod"


@dataclass(frozen=True)
class Use:
    """One claim of a job. `pods`: how many mount it at most."""

    field: str
    claim: str
    pods: int
    writes: bool


async def look(session: Session, namespace: str, classifier: Classifier, job: Manifest) -> None:
    """Raises UserError that lists everything which would keep the job's pods from being; tells what may.

    Raises EnvironmentProblem where there is no such namespace.
    """
    if classifier.spec.pod.host_network:
        session.listener.notice(
            f"spec.pod.hostNetwork: each pod takes port {names.PORT} of its node, the first {names.PROGRESS_PORT} too: "
            "two pods, also of two such runs, never share a node"
        )
    refused = await _pods(session, namespace, job)
    problems = [*await _claims(session, namespace, classifier), *refused]
    if problems:
        raise UserError("\n".join(problems), hint="nothing was created")


def uses(classifier: Classifier) -> Iterator[Use]:
    """The claims of a job, in the order of the spec."""
    spec = classifier.spec
    most = derive.nodes(spec)[1]
    ranks = most if derive.is_elastic(spec) else 1  # pods in which rank 0 may be
    for field, text, count, writes in (
        ("spec.data.path", spec.data.path, most, False),
        ("spec.data.cache", spec.data.cache, most, True),
        ("spec.model.weights", spec.model.weights, ranks, False),
        ("spec.train.output", spec.train.output, ranks, True),
    ):
        found = location.parse(text) if text else None
        if isinstance(found, Claim):
            yield Use(field, found.name, count, writes)


def misfit(use: Use, claim: Manifest) -> tuple[str | None, str | None]:
    """What is wrong with a claim for this use, and what is to be known of it; of each None where there is nothing."""
    modes = claim["spec"].get("accessModes") or []
    shown = ", ".join(modes)
    head = f"{use.field}: claim {use.claim}"
    if claim["metadata"].get("deletionTimestamp"):
        return f"{head} is being deleted", None
    if claim.get("status", {}).get("phase") == "Lost":
        return f"{head} has lost its volume", None
    if use.writes and modes and not {_MANY_WRITE, "ReadWriteOnce", _ONE_POD} & set(modes):
        return f"{head} cannot be written to: it is {shown}", None
    if use.pods == 1 or _MANY_WRITE in modes or (_MANY_READ in modes and not use.writes):
        return None, None
    if use.field == "spec.train.output":
        return (
            f"{head} is {shown}, but any of the {use.pods} pods of an elastic run may have to write to it: "
            f"use a {_MANY_WRITE} claim or a bucket",
            None,
        )
    if modes == [_ONE_POD]:
        return f"{head} is {shown}, but {use.pods} pods use it: use a {_MANY_WRITE} claim or a bucket", None
    return None, f"{head} is {shown}: all {use.pods} pods have to fit on the one node that has it"


def no_namespace(namespace: str) -> EnvironmentProblem:
    """What to say where a namespace is missing."""
    return EnvironmentProblem(
        f"there is no namespace {namespace!r} on this cluster",
        hint=f"kubectl create namespace {namespace}, or name another with --namespace",
    )


async def _claims(session: Session, namespace: str, classifier: Classifier) -> list[str]:
    problems: list[str] = []
    for use in uses(classifier):
        try:
            claim = await session.cluster.get(names.CLAIM, namespace, use.claim)
        except NotFound:
            problems.append(f"{use.field}: there is no claim {use.claim!r} in namespace {namespace}")
            continue
        except Forbidden:
            session.listener.notice(f"{use.field}: whether there is a claim {use.claim} cannot be seen by this user")
            continue
        wrong, notice = misfit(use, claim)
        if wrong:
            problems.append(wrong)
        if notice:
            session.listener.notice(notice)
    return problems


async def _pods(session: Session, namespace: str, job: Manifest) -> list[str]:
    whole = default(job)
    whole["metadata"] = {**whole["metadata"], "uid": ""}
    problems = []
    for replica_type in whole["spec"]["pytorchReplicaSpecs"]:
        pod = pods.replica_pod(whole, replica_type, 0, 1)
        del pod["metadata"]["ownerReferences"]  # of a job that is not there yet
        try:
            await session.cluster.create(names.POD, namespace, pod, dry_run=True)
        except (Invalid, BadRequest) as error:
            problems.append(f"a pod of the job is refused: {error.message}")
        except Forbidden as error:
            if may_not(error):
                log.info("the job's pods were not tried: %s", error.message)
            elif "exceeded quota" in error.message:
                session.listener.notice(f"the job will wait for room in the namespace's quota: {error.message}")
            else:
                problems.append(f"a pod of the job is refused: {error.message}")
        except NotFound as error:
            if names.NAMESPACE.plural in error.message:
                raise no_namespace(namespace) from error
            problems.append(f"a pod of the job is refused: {error.message}")
        except ApiError as error:  # such as a pod of the name: a run that has just been deleted
            log.info("the job's pods were not tried: %s", error.message)
    return list(dict.fromkeys(problems))
