"""A stop is honoured at the end of the step, or of the validation batch, in which it comes, and loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support import pictures
from support.ranks import classifier
from trainserve.observe.events import Event, read
from trainserve.train import loop
from trainserve.train.agreement import StopRequest
from trainserve.train.checkpoint import latest, load_best, weights_digest
from trainserve.train.distributed import Group
from trainserve.train.imagefolder import scan
from trainserve.train.loop import Outcome, fit
from trainserve.train.recipe import Recipe, resolve
from trainserve.train.report import Report

pytestmark = pytest.mark.slow

EPOCHS, STEPS = 2, 3  # steps an epoch; the validation has three batches


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = pictures.write_classes(tmp_path_factory.mktemp("data"), {"red": 44, "blue": 44}, size=8)
    listing = scan(folder, val_split=0.85)
    train = {"epochs": EPOCHS, "batchSize": 4, "lr": 0.02, "workers": 0}
    made = resolve(classifier(folder, model={"imageSize": 8}, train=train), listing, 8, 1)
    assert (made.steps_per_epoch, len(listing.val)) == (STEPS, 75)
    return made


class Run:
    """Training in this process, which asks itself to stop at a chosen batch: ("train" or "validation", number)."""

    def __init__(self, recipe: Recipe, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recipe, self.output = recipe, output
        self.seen: list[str] = []
        self.stop = StopRequest()
        self.stop_at: tuple[str, int] | None = None
        before = loop._problems

        def at_batch(*arguments) -> int:
            self.seen.append("validation" if torch.is_inference_mode_enabled() else "train")
            if self.stop_at == (self.seen[-1], self.seen.count(self.seen[-1])):
                self.stop.requested = True
            return before(*arguments)

        monkeypatch.setattr(loop, "_problems", at_batch)

    def fit(self, stop_at: tuple[str, int] | None = None) -> Outcome:
        self.seen.clear()
        self.stop.requested, self.stop_at = False, stop_at
        report = Report(self.output)
        outcome = fit(self.recipe, Group(), self.output, report, self.stop, cores=1)
        report.close()
        return outcome

    def events(self, kind: str) -> list[Event]:
        return [event for event in read(self.output / "events.jsonl")[0] if event["kind"] == kind]

    def result(self) -> tuple[str, str, list[tuple[float, float, float]]]:
        """Weights of the newest and of the best, and what the epochs' validations found."""
        newest, best = latest(self.output, pytest.fail), load_best(self.output, pytest.fail)
        assert newest is not None
        assert best is not None
        epochs = [(event["valLoss"], event["top1"], round(event["trainLoss"], 9)) for event in self.events("epoch")]
        return weights_digest(newest.weights), weights_digest(best.weights), epochs


@pytest.fixture
def run(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(recipe, tmp_path / "run", monkeypatch)


@pytest.fixture(scope="module")
def straight(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        undisturbed = Run(recipe, tmp_path_factory.mktemp("straight"), patch)
        assert undisturbed.fit().finished
    return undisturbed


@pytest.mark.parametrize(
    ("stop_at", "step", "trained", "validated"),
    [
        (("train", 1), 1, 1, 0),
        (("train", 2), 2, 2, 0),
        (("train", STEPS), STEPS, STEPS, 0),  # the epoch's last step: before its validation
        (("validation", 1), STEPS, STEPS, 1),
        (("validation", 2), STEPS, STEPS, 2),
        (("validation", 3), STEPS, STEPS, 3),  # its last batch: the validation counts
        (("train", EPOCHS * STEPS), EPOCHS * STEPS, EPOCHS * STEPS, 3),
        (("validation", 5), EPOCHS * STEPS, EPOCHS * STEPS, 5),
    ],
)
def test_a_stop_is_honoured_within_a_step_and_the_rest_changes_no_bit(
    straight: Run, run: Run, stop_at: tuple[str, int], step: int, trained: int, validated: int
) -> None:
    outcome = run.fit(stop_at)
    assert (outcome.finished, outcome.step) == (False, step)
    assert (run.seen.count("train"), run.seen.count("validation")) == (trained, validated)
    assert run.events("checkpoint")[-1]["step"] == step
    assert len(run.events("epoch")) == validated // 3
    assert run.fit().finished
    assert run.events("resume")[-1]["step"] == step
    assert run.seen.count("train") == EPOCHS * STEPS - trained
    assert run.seen.count("validation") == 3 * (EPOCHS - validated // 3)
    assert run.result() == straight.result()


def test_an_error_in_the_validation_does_not_lose_the_epoch(
    straight: Run, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("the disk went away")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", fails)
        with pytest.raises(RuntimeError, match="the disk went away"):
            run.fit()
    run.fit()
    assert run.events("resume")[-1]["step"] == STEPS
    assert run.result() == straight.result()
