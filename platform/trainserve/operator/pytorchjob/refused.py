"""A child that the API server refuses, though its template is right: a quota, an admission webhook, a name in use.

The job is not failed by it: it is `Pending`, says why, and tries again.
"""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.cluster import AlreadyExists, ApiError, Forbidden, Invalid
from trainserve.operator.pytorchjob import conditions
from trainserve.operator.pytorchjob.decision import Create, Decision
from trainserve.operator.pytorchjob.draft import Draft

_OF_ADMISSION = (" is forbidden: ", "denied the request")  # where validation says "is invalid: "
_QUOTA = "exceeded quota"  # how the API server's quota admission says it


def is_refusal(error: Exception) -> bool:
    """Whether the server means this object, and says so again however often it is asked; else it is the server."""
    if isinstance(error, Invalid):  # of a policy or a webhook that answers with 422: it may be changed; a template not
        return any(words in error.message for words in _OF_ADMISSION)
    return isinstance(error, (Forbidden, AlreadyExists)) or (isinstance(error, ApiError) and error.status >= 500)


def told(draft: Draft, create: Create, error: Exception) -> Decision:
    """The condition `Pending` with the server's words, and an Event when they are new."""
    kind, name = create.kind.kind, create.manifest["metadata"]["name"]
    said = error.message if isinstance(error, ApiError) else str(error)
    reason = f"{names.REASON_FAILED_CREATE}{kind}"
    message = f"Error creating {kind.lower()} {name}: {said}"
    if create.kind == names.AUTOSCALER:  # pods do without one: the job is not Pending for it
        draft.tell("Warning", reason, message)
        return draft.decision()
    of_condition = names.REASON_QUOTA if _QUOTA in said else reason
    if conditions.set_condition(draft.status, names.PENDING, of_condition, message, draft.now):
        draft.tell("Warning", reason, message)
    return draft.decision()
