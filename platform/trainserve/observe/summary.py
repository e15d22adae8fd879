"""One run in a few numbers, from its job object and its events; the same words for `list`, `status` and `train`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

from trainserve.kube import moments, names
from trainserve.observe.events import Event


class Summary(TypedDict):
    """What `platform list` and `status` show. Unknown values are None; times are unix seconds."""

    name: str
    state: str
    nodes: int
    created: float | None
    epoch: int | None
    epochs: int | None
    step: int | None
    steps: int | None
    checkpointStep: int | None  # of the newest checkpoint: what a resume goes on from
    loss: float | None
    top1: float | None  # of the newest validation, 0 to 1
    imagesPerSecond: float | None
    etaSeconds: float | None
    restarts: int
    message: str  # of the newest condition
    bundle: str | None
    archive: str | None


def summarize(name: str, state: str, job: dict[str, Any] | None, run_events: Iterable[Event]) -> Summary:
    """Fold a run's events over its job. `state` is the run's, which knows about dead supervisors."""
    job = job or {}
    status = job.get("status", {})
    progress = status.get("progress") or {}  # as the controller saw it; the events are newer
    conditions = status.get("conditions") or []
    summary = Summary(
        name=name,
        state=state,
        nodes=nodes(job),
        created=moments.unix(job.get("metadata", {}).get("creationTimestamp")),
        epoch=progress.get("epoch"),
        epochs=progress.get("epochs"),
        step=progress.get("step"),
        steps=progress.get("steps"),
        checkpointStep=progress.get("checkpointStep"),
        loss=progress.get("loss"),
        top1=progress.get("top1"),
        imagesPerSecond=None,
        etaSeconds=None,
        restarts=status.get("restarts", 0),
        message=conditions[-1].get("message", "") if conditions else "",
        bundle=None,
        archive=None,
    )
    for event in run_events:
        if "epochs" in event:  # start and resume
            summary["epochs"] = event["epochs"]
            summary["steps"] = event["epochs"] * event.get("stepsPerEpoch", 0)
        match event["kind"]:
            case "resume" | "step":
                summary["epoch"], summary["step"] = event.get("epoch"), event.get("step")
                summary["loss"] = event.get("loss", summary["loss"])
                summary["imagesPerSecond"] = event.get("imagesPerSecond", summary["imagesPerSecond"])
                summary["etaSeconds"] = event.get("etaSeconds", summary["etaSeconds"])
            case "checkpoint":
                # Of the steps only some are told, of the checkpoints all.
                summary["step"] = summary["checkpointStep"] = event.get("step")
            case "stopped":
                summary["step"] = event.get("step", summary["step"])
                summary["etaSeconds"] = None  # it was that of a gang that is gone
            case "epoch":
                summary["epoch"], summary["step"] = event.get("epoch"), event.get("step")
                summary["top1"] = event.get("top1")
            case "done":
                summary["top1"] = event.get("top1", summary["top1"])
                summary["bundle"], summary["archive"] = event.get("bundle"), event.get("archive")
            case _:
                pass
    if state != names.RUNNING:
        summary["etaSeconds"] = None
    return summary


def nodes(job: dict[str, Any]) -> int:
    """Number of replicas of a PyTorchJob, all types together."""
    replicas = job.get("spec", {}).get("pytorchReplicaSpecs", {})
    return sum(spec.get("replicas", 1) for spec in replicas.values())
