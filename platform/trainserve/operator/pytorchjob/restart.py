"""What follows a failure: the end of the job, a restart that counts against backoffLimit, or one free of charge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.replicas import replicas, restart_policy
from trainserve.operator.pytorchjob import pacing
from trainserve.operator.pytorchjob.draft import Draft
from trainserve.operator.pytorchjob.failure import Cause, Failure, failure_of, first_failure, in_place_out_of_memory
from trainserve.operator.pytorchjob.observed import Pod

# Victims end within moments of the rank that failed, but their pods may be heard of before its pod is.
VICTIMS_WAIT_S = 10.0


class Verdict(Enum):
    FAIL = "fail"
    COUNTED = "counted"
    FREE = "free"


def judge(job: Manifest, failure: Failure) -> Verdict:
    """The cause goes before the policy's reading of the exit code, except for Never: that means once."""
    policy = restart_policy(job, failure.replica_type)
    if policy == "Never" or failure.cause is Cause.OUT_OF_MEMORY:
        return Verdict.FAIL
    if failure.cause in {Cause.TAKEN_AWAY, Cause.STOPPED}:
        return Verdict.FREE
    if failure.cause is Cause.PERMANENT and policy == "ExitCode":
        return Verdict.FAIL
    return Verdict.COUNTED


def gang_failures(draft: Draft, pods: Sequence[Pod]) -> list[Failure]:
    """Failures among the pods of the current generation. A pod that was there and is missing was taken away."""
    failures = [failure for pod in pods if (failure := failure_of(pod, draft.now)) is not None]
    # Pods of Kubeflow's operator may be restarted in place, where the rank would meet peers that wait for the old one.
    failures += [_in_place(pod, draft.now) for pod in pods if pod.restarting]
    if int(draft.status.get("assembled") or 0) == draft.generation:
        there = {(pod.replica_type, pod.index) for pod in pods}
        failures += [
            Failure(replica_type, index, Cause.TAKEN_AWAY, draft.now, False, f"{replica_type} {index}: its pod is gone")
            for replica_type, index in replicas(draft.job)
            if (replica_type, index) not in there
        ]
    return failures


def must_wait_for_cause(draft: Draft, pods: Sequence[Pod], failures: Sequence[Failure]) -> bool:
    """Whether all failures so far are victims of one that is still to be heard of; asks to be looked at again."""
    if any(failure.cause is not Cause.VICTIM for failure in failures) or all(pod.ended for pod in pods):
        return False
    left_s = min(failure.time for failure in failures) + VICTIMS_WAIT_S - draft.now
    if left_s > 0:
        draft.look_again(left_s)
    return left_s > 0


def restart_gang(draft: Draft, pods: Sequence[Pod], failures: Sequence[Failure]) -> None:
    """All ranks of the generation are given up together; the next starts from the last checkpoint.

    Generation and count are one write: it happens once, whenever the controller dies.
    """
    first = first_failure(failures)
    if first.cause is Cause.STALLED:  # a fact of its own, whatever follows from it
        draft.tell("Warning", names.REASON_STALLED, first.sentence)
    verdict = judge(draft.job, first)
    if verdict is Verdict.FREE and pacing.free_is_used_up(draft):
        verdict = Verdict.COUNTED
    if verdict is Verdict.FAIL:
        _fail(draft, pods, first, failures)
    elif verdict is Verdict.COUNTED and _limit_reached(draft, draft.restarts + 1):
        _fail_backoff(draft, pods, first)
    else:
        if verdict is Verdict.COUNTED:
            draft.status["restarts"] = draft.restarts + 1
        pacing.record(draft, first.sentence, first.cause.word, free=verdict is Verdict.FREE)
        draft.next_generation()
        _restarting(draft, first, failures, free=verdict is Verdict.FREE)


def restart_singly(draft: Draft, pods: Sequence[Pod]) -> list[Pod]:
    """Upstream's way: failed pods are replaced one by one, others are restarted in place by their kubelet.

    Returns the pods that must go, or none when the job has failed. Restarts are counted across both ways:
    `podRestarts` holds what was counted of each pod, so none counts twice.
    """
    wanted = set(replicas(draft.job))
    pods = [pod for pod in pods if (pod.replica_type, pod.index) in wanted]  # the others leave because of a new size
    failures = {pod.uid: failure for pod in pods if (failure := failure_of(pod, draft.now)) is not None}
    # Its kubelet would start it again and again, and each time it would be too large.
    failures |= {pod.uid: killed for pod in pods if (killed := in_place_out_of_memory(pod, draft.now)) is not None}
    verdicts = {uid: judge(draft.job, failure) for uid, failure in failures.items()}
    fatal = [failure for uid, failure in failures.items() if verdicts[uid] is Verdict.FAIL]
    if fatal:
        _fail(draft, pods, first_failure(fatal), fatal)
        return []
    counted_before: dict[str, int] = draft.status.get("podRestarts") or {}
    counted = {}
    for pod in pods:
        again = pod.restarting or verdicts.get(pod.uid) is Verdict.COUNTED
        counted[pod.uid] = max(pod.restart_count + int(again), counted_before.get(pod.uid, 0))
    new = sum(count - counted_before.get(uid, 0) for uid, count in counted.items())
    if new and _limit_reached(draft, draft.restarts + new):
        in_place = [_in_place(pod, draft.now) for pod in pods if pod.restarting]
        _fail_backoff(draft, pods, first_failure([*failures.values(), *in_place]) if failures or in_place else None)
        return []
    if new:
        draft.status["restarts"] = draft.restarts + new
    remembered = {uid: count for uid, count in counted.items() if count}
    if remembered or counted_before:
        draft.status["podRestarts"] = remembered
    replaced = [pod for pod in pods if pod.uid in failures]
    if replaced:
        free = Verdict.COUNTED not in verdicts.values()
        _restarting(draft, first_failure(failures.values()), list(failures.values()), free=free)
    return replaced


def _in_place(pod: Pod, now: float) -> Failure:
    end = pod.main_end
    code = end.exit_code if end is not None else None
    at = end.finished_at if end is not None else None
    sentence = f"{pod.title}: exit code {code}, restarted {pod.restart_count} times in place"
    return Failure(pod.replica_type, pod.index, Cause.RETRYABLE, now if at is None else at, False, sentence)


def _limit_reached(draft: Draft, restarts: int) -> bool:
    limit = draft.run_policy.get("backoffLimit")
    return limit is not None and restarts > int(limit)


def _restarting(draft: Draft, first: Failure, failures: Iterable[Failure], *, free: bool) -> None:
    limit = draft.run_policy.get("backoffLimit")
    cost = "free of charge" if free else f"restart {draft.restarts}{'' if limit is None else f' of {limit}'}"
    pause_s = pacing.hold_s(draft)
    pause = f", after a pause of {pause_s:.0f} s" if pause_s >= 1 else ""
    message = f"{_count(names.MESSAGE_RESTARTING, draft.name, first, failures)} {first.sentence} ({cost}{pause})"
    draft.status["cause"] = first.sentence
    draft.condition(names.RESTARTING, names.REASON_RESTARTING, message, "Warning")


def _fail(draft: Draft, pods: Iterable[Pod], first: Failure, failures: Iterable[Failure]) -> None:
    message = f"{_count(names.MESSAGE_FAILED, draft.name, first, failures)} {first.sentence}"
    draft.fail(names.REASON_FAILED, message, pods, cause=first.sentence)


def _fail_backoff(draft: Draft, pods: Iterable[Pod], first: Failure | None) -> None:
    message = names.MESSAGE_BACKOFF_LIMIT.format(job=draft.name)
    limit = draft.run_policy["backoffLimit"]
    detail = f". {first.sentence}" if first is not None else ""
    draft.fail(
        names.REASON_BACKOFF_LIMIT,
        f"{message} of {limit}{detail}",
        pods,
        cause=None if first is None else first.sentence,
    )


def _count(template: str, job: str, first: Failure, failures: Iterable[Failure]) -> str:
    same = sum(1 for failure in failures if failure.replica_type == first.replica_type)
    return template.format(job=job, count=same, replica_type=first.replica_type)
