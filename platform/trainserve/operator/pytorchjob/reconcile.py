"""The PyTorchJob controller's one decision: what to do, given a job, what was observed of it, and the time.

Pure. Each step is a sentence, an `if` and a policy. Source of the rules and their order: kubeflow.org/v1 of the
Training Operator v1.9; docs/architecture.md, "The controller", says where this one differs.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainserve.kube import names, replicas
from trainserve.kube.cluster import Manifest
from trainserve.operator.pytorchjob import (
    children,
    cleanup,
    conditions,
    counting,
    deadline,
    generations,
    invalid,
    placement,
    resize,
    restart,
    skew,
    success,
    suspend,
    ttl,
)
from trainserve.operator.pytorchjob.decision import Decision, Delete
from trainserve.operator.pytorchjob.draft import Draft, run_policy
from trainserve.operator.pytorchjob.observed import Observed, Pod
from trainserve.spec.pytorchjob import default


def reconcile(job: Manifest, observed: Observed, now: float) -> Decision:
    """`job` as the API server has it; `now` in unix seconds. Changes neither, and says the same for the same input."""
    # Another controller's job, and one that is going away, is left alone.
    if run_policy(job).get("managedBy", "") not in names.MANAGED_BY_US:
        return Decision()
    if "deletionTimestamp" in job["metadata"]:
        return Decision()

    # A finished job stays as it is: its pods are cleaned up, and in the end it goes.
    if conditions.is_finished(job.get("status") or {}):
        draft = Draft(job, now)
        return ttl.delete(draft) if ttl.is_over(draft) else cleanup.clean(draft, observed)

    # A job that breaks a rule fails at once, with the rule.
    problem = invalid.problem_of(job)
    if problem is not None:
        return invalid.fail(Draft(job, now), problem)

    draft = Draft(default(job), now)
    if observed.progress is not None:
        draft.status["progress"] = observed.progress

    # A job that a command of another major version has made does not begin.
    if skew.is_refused(draft):
        skew.refuse(draft)
        return draft.decision()

    # A job that is seen for the first time has been created.
    if not conditions.is_listed(draft.status, names.CREATED):
        message = names.MESSAGE_CREATED.format(job=draft.name)
        draft.condition(names.CREATED, names.REASON_CREATED, message, "Normal")

    # One whose maker is of another minor version goes on, and says so.
    skew.warn(draft)

    # A job that has reached its end has succeeded, whatever else is asked of it.
    if success.has_succeeded(draft.job, observed.of_generation(draft.generation)):
        draft.succeed(observed.of_generation(draft.generation))
        return draft.decision()

    # A suspended job has no pods.
    if suspend.is_wanted(draft.job):
        return suspend.stop(draft, observed)

    # A job that was suspended and no longer is to be goes on, with a new clock.
    if conditions.is_true(draft.status, names.SUSPENDED):
        suspend.resume(draft)
    draft.start_clock()

    # A job that was active for too long has failed.
    if deadline.is_exceeded(draft):
        deadline.fail(draft, observed.of_generation(draft.generation))
        return draft.decision()

    # Pods belong to a generation, the first one being 1.
    generations.begin(draft, observed)
    pods = observed.of_generation(draft.generation)

    # A gang whose size was changed starts over with the new size.
    if resize.is_needed(draft.job, pods):
        resize.start_over(draft)
        return _go_on(draft, observed)

    # A part of a gang does not hold for ever what another job could run on.
    if placement.is_overdue(draft, pods):
        placement.give_back(draft, pods)
        return _go_on(draft, observed)

    # A gang restarts as a whole, or the job fails.
    if replicas.is_gang(draft.job):
        failures = restart.gang_failures(draft, pods)
        if failures and restart.must_wait_for_cause(draft, pods, failures):
            _count(draft, pods)
            return draft.decision()
        if failures:
            restart.restart_gang(draft, pods, failures)
        return draft.decision() if conditions.is_finished(draft.status) else _go_on(draft, observed)

    # Other pods are replaced one by one.
    replaced = restart.restart_singly(draft, pods)
    return draft.decision() if conditions.is_finished(draft.status) else _go_on(draft, observed, replaced)


def _go_on(draft: Draft, observed: Observed, replaced: Sequence[Pod] = ()) -> Decision:
    """The children that should be, and the status of those that are; `replaced` are to go one by one."""
    pods = observed.of_generation(draft.generation)
    _count(draft, pods)
    leader_type = replicas.leader(draft.job)[0]
    if not replaced and draft.status["replicaStatuses"][leader_type]["active"]:
        message = names.MESSAGE_RUNNING.format(job=draft.name)
        draft.condition(names.RUNNING, names.REASON_RUNNING, message, "Normal")
    changes = children.missing_and_surplus(draft, observed)
    deletes = [Delete(names.POD, pod.name, pod.uid) for pod in replaced if not pod.deleting]
    return draft.decision(deletes=[*deletes, *changes.deletes], updates=changes.updates, creates=changes.creates)


def _count(draft: Draft, pods: tuple[Pod, ...]) -> None:
    draft.count(counting.replica_statuses(draft.job, pods))
