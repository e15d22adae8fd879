"""ttlSecondsAfterFinished: the job goes so long after its end, and its children with it."""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.moments import unix
from trainserve.operator.pytorchjob import conditions
from trainserve.operator.pytorchjob.decision import Decision, Delete
from trainserve.operator.pytorchjob.draft import Draft


def is_over(draft: Draft) -> bool:
    """Whether the finished job is to be deleted; if not yet, asks to be looked at when it is."""
    ttl_s = draft.run_policy.get("ttlSecondsAfterFinished")
    finished_at = unix(conditions.finished_at(draft.status))
    if not isinstance(ttl_s, int) or finished_at is None:  # of a job that breaks rules it may be anything
        return False
    left_s = finished_at + float(ttl_s) - draft.now
    if left_s > 0:
        draft.look_again(left_s)
    return left_s <= 0


def delete(draft: Draft) -> Decision:
    metadata = draft.job["metadata"]
    return draft.decision(deletes=[Delete(names.PYTORCHJOB, metadata["name"], metadata["uid"])])
