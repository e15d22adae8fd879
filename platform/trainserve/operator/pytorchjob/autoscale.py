"""`elasticPolicy.metrics`: an autoscaler as long as the job has pods."""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.autoscaler import autoscaler, difference, is_wanted
from trainserve.operator.pytorchjob.decision import Create, Delete, Update
from trainserve.operator.pytorchjob.draft import Draft
from trainserve.operator.pytorchjob.observed import Observed


def missing(draft: Draft, observed: Observed) -> list[Create]:
    if not is_wanted(draft.job) or not observed.facilities.autoscaling or observed.autoscalers:
        return []
    return [Create(names.AUTOSCALER, autoscaler(draft.job))]


def changed(draft: Draft, observed: Observed) -> list[Update]:
    if not is_wanted(draft.job):
        return []
    wanted = autoscaler(draft.job)
    return [
        Update(names.AUTOSCALER, there.name, there.uid, patch)
        for there in observed.autoscalers
        if not there.deleting and (patch := difference(wanted, there.raw)) is not None
    ]


def surplus(draft: Draft, observed: Observed) -> list[Delete]:
    """Of a job that no longer has metrics."""
    return [] if is_wanted(draft.job) else all_of(observed)


def all_of(observed: Observed) -> list[Delete]:
    """Of a job that has no pods, or is finished: an autoscaler would go on setting its size."""
    return [Delete(names.AUTOSCALER, there.name, there.uid) for there in observed.autoscalers if not there.deleting]
