"""What `kubectl get` shows in words: a column is one field, as it is, so what needs wording is a field of its own."""

from __future__ import annotations

from trainserve.kube import names, replicas
from trainserve.kube.cluster import Manifest
from trainserve.observe.words import duration, percent
from trainserve.operator.pytorchjob import conditions


def nodes(job: Manifest, replica_statuses: Manifest) -> str:
    """`3/4`: pods that run, of all; of a defaulted job."""
    active = sum(counts["active"] for counts in replica_statuses.values())
    return f"{active}/{replicas.total_replicas(job)}"


def fill(status: Manifest) -> None:
    """Set `progressSummary` and `eta` by what else the status says; an ETA is of a job that runs."""
    progress = status.get("progress") or {}
    words = {"progressSummary": _summary(progress), "eta": ""}
    if progress.get("etaSeconds") is not None and conditions.is_true(status, names.RUNNING):
        words["eta"] = duration(progress["etaSeconds"])
    for field, text in words.items():
        if text:
            status[field] = text
        else:
            status.pop(field, None)


def _summary(progress: Manifest) -> str:
    """`epoch 3/10, 27.5%, top-1 91.2%`: what is known of it."""
    parts = []
    if progress.get("epoch") is not None:
        of = f"/{progress['epochs']}" if progress.get("epochs") else ""
        parts.append(f"epoch {progress['epoch']}{of}")
    if progress.get("step") is not None:
        steps = progress.get("steps")
        parts.append(percent(progress["step"] / steps) if steps else f"step {progress['step']}")
    if progress.get("top1") is not None:
        parts.append(f"top-1 {percent(progress['top1'])}")
    return ", ".join([*parts, *(["stalled"] if progress.get("stalled") else [])])
