"""activeDeadlineSeconds: enforced on time, event or no event."""

from __future__ import annotations

from trainserve.kube import names
from trainserve.operator.pytorchjob.draft import Draft
from trainserve.operator.pytorchjob.observed import Pod


def is_exceeded(draft: Draft) -> bool:
    """Whether the job was active for too long; if not yet, asks to be looked at when it will be."""
    limit_s = draft.run_policy.get("activeDeadlineSeconds")
    if limit_s is None:
        return False
    left_s = draft.started_at() + float(limit_s) - draft.now
    if left_s > 0:
        draft.look_again(left_s)
    return left_s <= 0


def fail(draft: Draft, pods: tuple[Pod, ...]) -> None:
    message = names.MESSAGE_DEADLINE.format(job=draft.name)
    limit_s = draft.run_policy["activeDeadlineSeconds"]
    draft.fail(names.REASON_DEADLINE, message, pods, cause=f"activeDeadlineSeconds: {limit_s} s are over")
