"""A checkpoint that hardly fits into the time that a pod has to end is told, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import pictures
from support.ranks import classifier
from trainserve.errors import SpecError
from trainserve.observe.events import read
from trainserve.train import checkpoint, loop
from trainserve.train.agreement import StopRequest
from trainserve.train.distributed import Group
from trainserve.train.grace import Grace, of_environment
from trainserve.train.imagefolder import scan
from trainserve.train.recipe import resolve
from trainserve.train.report import Report


@pytest.mark.parametrize(
    ("grace_s", "took_s", "verdict"),
    [
        (None, 1e6, None),
        (120, 0.2, None),
        (120, 60.0, None),
        (120, 60.1, "it may not fit"),
        (120, 121.0, "it does not fit"),
        (0, 0.1, "it does not fit"),
    ],
)
def test_half_of_the_time_is_a_warning(grace_s: float | None, took_s: float, verdict: str | None) -> None:
    told = Grace(grace_s).warning("the checkpoint of step 7", took_s)
    assert (told is None) == (verdict is None)
    if verdict is not None:
        assert told is not None
        assert f"the checkpoint of step 7 took {took_s:.1f} s" in told
        assert f"has {grace_s} s for the step in progress and a checkpoint: {verdict}" in told


def test_it_is_told_once() -> None:
    grace = Grace(1.0)
    assert grace.warning("a checkpoint", 0.4) is None
    assert grace.warning("a checkpoint", 0.6) is not None
    assert grace.warning("a checkpoint", 0.9) is None


def test_the_time_is_what_the_env_says() -> None:
    assert of_environment({}) == Grace()
    assert of_environment({"TRAINSERVE_GRACE_S": "120"}) == Grace(120.0)
    with pytest.raises(SpecError, match="TRAINSERVE_GRACE_S: '2m' is not allowed; allowed: seconds"):
        of_environment({"TRAINSERVE_GRACE_S": "2m"})


def test_training_tells_it_where_writing_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures.write_classes(tmp_path / "data", {"red": 6, "blue": 6}, size=8)
    train = {"epochs": 2, "batchSize": 2, "workers": 0, "checkpointEverySteps": 1}
    recipe = resolve(classifier(folder, model={"imageSize": 8}, train=train), scan(folder, val_split=0.5), 8, 1)
    now = 0.0  # of a clock that only writing moves, 70 s a checkpoint
    save = checkpoint.save

    def slow(*arguments: object, **options: object) -> Path:
        nonlocal now
        now += 70
        return save(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("trainserve.train.loop.time.monotonic", lambda: now)
    monkeypatch.setattr(checkpoint, "save", slow)
    report = Report(tmp_path / "run")
    loop.fit(recipe, Group(), tmp_path / "run", report, StopRequest(), cores=1, grace=Grace(120.0))
    report.close()
    events = read(tmp_path / "run" / "events.jsonl")[0]
    told = [event["message"] for event in events if event["kind"] == "notice" and "took 70.0 s" in event["message"]]
    assert len(told) == 1
    assert len([event for event in events if event["kind"] == "checkpoint"]) > 2
    assert "it may not fit" in told[0]
