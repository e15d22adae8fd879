"""`status.generation`: which gang is the current one. It is written before any pod of it is created."""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.operator.pytorchjob import children
from trainserve.operator.pytorchjob.draft import Draft
from trainserve.operator.pytorchjob.observed import Observed

LONGEST = 9  # digits of a generation that a user may name


def begin(draft: Draft, observed: Observed) -> None:
    """The first generation, of which Kubeflow's operator may have made the pods: then they go on.

    Or one after all that left pods behind, where the status knows less than the pods do: a status from a backup, or one
    that was read before it was written; then the write is a conflict.
    """
    newest = max((pod.generation for pod in observed.pods), default=0)
    if draft.generation == 0 and newest == 0:
        children.tell_what_is_not_done(draft, observed)
        draft.status["generation"] = _before(draft.job)
        draft.next_generation()
    elif draft.generation == 0 and all(pod.adopted for pod in observed.pods):
        children.tell_what_is_not_done(draft, observed)
        draft.status["generation"] = newest
        message = names.MESSAGE_ADOPTED.format(job=draft.name, count=len(observed.pods))
        draft.tell("Normal", names.REASON_ADOPTED, message)
    elif newest > draft.generation:
        draft.status["generation"] = newest
        draft.next_generation()


def _before(job: Manifest) -> int:
    """The last generation of the job that this one goes on for: groups and logs of both have names of their own."""
    said = str((job["metadata"].get("annotations") or {}).get(names.ANNOTATION_AFTER_GENERATION) or "")
    return int(said) if said.isascii() and said.isdigit() and len(said) <= LONGEST else 0
