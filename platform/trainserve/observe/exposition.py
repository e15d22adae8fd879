"""What rank 0 knows as Prometheus reads it (text format 0.0.4). Pure, and without its client library: a training image
has none.

No labels: a scrape adds the pod's own. The rank serves one job only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

from trainserve.observe import prometheus
from trainserve.observe.events import Event
from trainserve.observe.prometheus import Metric

Numbers: TypeAlias = Mapping[Metric, float]  # what is not known is left out

# Fields of an event that are metrics as they are.
_SAME: Mapping[str, Metric] = {
    "worldSize": prometheus.PROCESSES,
    "epoch": prometheus.EPOCH,
    "epochs": prometheus.EPOCHS,
    "step": prometheus.STEP,
    "loss": prometheus.LOSS,
    "lr": prometheus.LEARNING_RATE,
    "trainLoss": prometheus.TRAIN_LOSS,
    "trainTop1": prometheus.TRAIN_TOP1,
    "valLoss": prometheus.VAL_LOSS,
    "top1": prometheus.TOP1,
    "top5": prometheus.TOP5,
    "imagesPerSecond": prometheus.IMAGES_PER_SECOND,
    "etaSeconds": prometheus.ETA,
}
_TOLD_BY = frozenset({"start", "resume", "step", "epoch", "checkpoint", "done"})


def measured(numbers: Numbers, event: Event) -> Numbers:
    """The numbers after `event`; `numbers` itself stays as it is."""
    kind, values = event["kind"], dict(event)
    if kind not in _TOLD_BY:
        return numbers
    after = dict(numbers)
    for field, metric in _SAME.items():
        value = values.get(field)
        if isinstance(value, int | float):
            after[metric] = float(value)
    if "epochs" in event and "stepsPerEpoch" in event:
        after[prometheus.STEPS] = float(event["epochs"] * event["stepsPerEpoch"])
    if kind in {"start", "resume"}:
        after[prometheus.START_TIME] = event["time"]
    if kind in {"checkpoint", "resume"} and "step" in event:
        after[prometheus.CHECKPOINT_STEP] = float(event["step"])
    if kind == "checkpoint":
        after[prometheus.CHECKPOINT_TIME] = event["time"]
    if kind == "done":
        after[prometheus.ETA] = 0.0
    return after


def exposition(numbers: Numbers) -> str:
    """One gauge a known number, in the order of the names' table."""
    lines: list[str] = []
    for metric in prometheus.TRAINING:
        if metric in numbers:
            value = _written(numbers[metric])
            lines += [
                f"# HELP {metric.name} {metric.meaning}",
                f"# TYPE {metric.name} {metric.kind}",
                f"{metric.name} {value}",
            ]
    return "\n".join(lines) + "\n"


def _written(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return repr(float(value)) if math.isfinite(value) else f"{value:+}".replace("inf", "Inf")
