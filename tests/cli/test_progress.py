"""What a person sees of a run while it goes."""

from __future__ import annotations

import itertools

import pytest

from trainserve.cli.output import columns, duration, percent
from trainserve.cli.progress import Display
from trainserve.observe.events import Event

START: Event = {
    "time": 0, "kind": "start", "arch": "resnet18", "stem": "small", "imageSize": 16, "trainSamples": 40, "classes": 3,
    "valSamples": 8, "worldSize": 4, "batchSize": 8, "device": "cpu", "epochs": 3, "stepsPerEpoch": 5,
}  # fmt: skip


def step(number: int, epoch: int) -> Event:
    return {
        "time": 1,
        "kind": "step",
        "epoch": epoch,
        "step": number,
        "loss": 0.5,
        "imagesPerSecond": 80,
        "etaSeconds": 70,
    }


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = itertools.count(0, 6)  # a line each ten
    with Display(terminal=False, clock=lambda: next(seconds)) as display:
        display.event(START)
        for number in range(1, 4):
            display.event(step(number, 1))
        display.event({"time": 2, "kind": "epoch", "epoch": 1, "trainLoss": 1, "valLoss": 2, "top1": 0.5, "top5": 1})
        display.event({"time": 3, "kind": "checkpoint", "step": 5})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "training resnet18 (small stem, 16 px) on 40 pictures of 3 classes, validating on 8; "
        "4 processes, global batch 8, cpu"
    )
    assert lines[1] == "epoch 1/3  step 1/15  loss 0.5000  80 images/s  ETA 1m10s"
    assert lines[-1] == "epoch 1/3  train loss 1.0000  val loss 2.0000  top-1 50.0%  top-5 100.0%"


def test_a_resumed_run_is_shown_with_its_totals(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(terminal=False) as display:
        display.event({**START, "kind": "resume", "checkpoint": "step-00000007", "epoch": 2, "step": 7})
        display.event(step(8, 2))
    assert capsys.readouterr().err.splitlines() == [
        "going on from step-00000007 (epoch 2, step 7)",
        "epoch 2/3  step 8/15  loss 0.5000  80 images/s  ETA 1m10s",
    ]


def test_the_bar_has_everything(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with Display(terminal=True) as display:
        display.event(START)
        display.event({"time": 2, "kind": "epoch", "epoch": 1, "trainLoss": 1, "valLoss": 2, "top1": 0.875, "top5": 1})
        display.event(step(8, 2))
        assert display._bar is not None
        display._bar.refresh()
    text = capsys.readouterr().err
    for part in ("epoch 2/3", "step 8/15", "loss 0.5000", "80 images/s", "ETA 1m10s", "top-1 87.5%"):
        assert part in text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0, "0s"), (59.6, "1m"), (61, "1m1s"), (3600, "1h"), (90061, "1d1h"), (-5, "0s")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_columns_are_aligned_and_percent_has_one_digit() -> None:
    assert columns([{"a": "x", "long name": "1"}, {"a": "yyy", "long name": ""}]) == "A    LONG NAME\nx    1\nyyy"
    assert columns([]) == ""
    assert percent(0.97777) == "97.8%"
