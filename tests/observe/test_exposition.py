"""From events to what Prometheus scrapes of a training pod."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from trainserve.observe import prometheus
from trainserve.observe.events import Event
from trainserve.observe.exposition import Numbers, exposition, measured

START: Event = {"time": 100.5, "kind": "start", "epochs": 3, "stepsPerEpoch": 10, "worldSize": 4, "arch": "resnet18"}


def _measured(*events: Any) -> dict[str, float]:
    numbers: Numbers = {}
    for event in events:
        numbers = measured(numbers, event)
    return {metric.name.removeprefix("trainserve_training_"): value for metric, value in numbers.items()}


def test_what_a_run_measures_from_start_to_end() -> None:
    events: list[Any] = [START, {"time": 101, "kind": "notice", "message": "m"}]
    known: dict[str, float] = {"start_timestamp_seconds": 100.5, "epochs": 3, "steps": 30, "processes": 4}
    assert _measured(*events) == known
    events += [
        {"time": 102, "kind": "step", "epoch": 1, "step": 4, "loss": 2.0, "lr": 0.1, "imagesPerSecond": 8.0,
         "etaSeconds": 9.5},
        {"time": 103, "kind": "checkpoint", "step": 10, "checkpoint": "step-00000010"},
        {"time": 104, "kind": "epoch", "epoch": 1, "step": 10, "top1": 0.25, "top5": 1.0, "trainLoss": 1.0,
         "valLoss": 1.5, "trainTop1": 0.5},
    ]  # fmt: skip
    known |= {
        "epoch": 1, "step": 10, "loss": 2, "learning_rate": 0.1, "images_per_second": 8, "eta_seconds": 9.5,
        "checkpoint_step": 10, "checkpoint_timestamp_seconds": 103, "top1_ratio": 0.25, "top5_ratio": 1,
        "epoch_train_loss": 1, "epoch_val_loss": 1.5, "epoch_train_top1_ratio": 0.5,
    }  # fmt: skip
    assert _measured(*events) == known
    events += [{"time": 105, "kind": "stopped", "step": 10}, {"time": 106, "kind": "done", "step": 30, "top1": 0.5}]
    assert _measured(*events) == {**known, "step": 30, "top1_ratio": 0.5, "eta_seconds": 0}


def test_a_resumed_gang_knows_its_checkpoints_step_and_wrote_none_itself() -> None:
    resume = {"time": 7, "kind": "resume", "epoch": 2, "step": 15, "epochs": 3, "stepsPerEpoch": 10, "top1": 0.5}
    assert _measured(resume) == {
        "start_timestamp_seconds": 7, "epoch": 2, "step": 15, "epochs": 3, "steps": 30, "top1_ratio": 0.5,
        "checkpoint_step": 15,
    }  # fmt: skip


def test_the_numbers_before_stay_as_they_were() -> None:
    before = measured({}, START)
    measured(before, {"time": 2, "kind": "step", "epoch": 1, "step": 1, "loss": 1.0})
    assert prometheus.STEP not in before


def test_exposition_of_what_is_known() -> None:
    numbers = {prometheus.STALLED: True, prometheus.LOSS: 2.5, prometheus.GENERATION: 3, prometheus.TOP1: 0.5}
    text = exposition(numbers)
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        "trainserve_training_generation 3.0",
        "trainserve_training_loss 2.5",
        "trainserve_training_top1_ratio 0.5",
        "trainserve_training_stalled 1.0",
    ]
    assert "# TYPE trainserve_training_loss gauge\n" in text
    assert "trainserve_training_step" not in text


@pytest.mark.parametrize(("value", "written"), [(math.nan, "NaN"), (math.inf, "+Inf"), (-math.inf, "-Inf")])
def test_numbers_that_are_none_are_written_as_prometheus_writes_them(value: float, written: str) -> None:
    assert exposition({prometheus.LOSS: value}).endswith(f"\ntrainserve_training_loss {written}\n")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(prometheus.TRAINING), st.floats(allow_nan=False)))
def test_prometheus_own_parser_reads_it(numbers: dict[prometheus.Metric, float]) -> None:
    families = {family.name: family for family in text_string_to_metric_families(exposition(numbers))}
    assert {name: family.samples[0].value for name, family in families.items()} == {
        metric.name: value for metric, value in numbers.items()
    }
