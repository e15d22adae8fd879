"""A job that breaks a rule which the API server's own validation would have refused."""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.moments import rfc3339
from trainserve.operator.pytorchjob.decision import Decision
from trainserve.operator.pytorchjob.draft import Draft
from trainserve.spec.pytorchjob import InvalidJob, validate


def problem_of(job: Manifest) -> str | None:
    """The rules it breaks, with their field paths. The status is ours to write and no part of what is checked."""
    try:
        validate({key: value for key, value in job.items() if key != "status"})
    except InvalidJob as error:
        return error.message
    return None


def fail(draft: Draft, problem: str) -> Decision:
    """Permanent: the same spec would break the same rule again. Nothing of the spec is read."""
    message = names.MESSAGE_INVALID.format(job=draft.name, problem=problem)
    draft.condition(names.FAILED, names.REASON_INVALID, message, "Warning")
    draft.status["completionTime"] = rfc3339(draft.now)
    draft.status["cause"] = problem
    draft.look_again(0.0)
    return draft.decision()
