"""Real ranks on a tiny data set: what `python -m trainserve.launch.work` does from start to end."""

from __future__ import annotations

import json
import signal
import time

import pytest

from support import pictures
from support.ranks import Ranks, classifier
from trainserve.errors import EXIT_DATA, EXIT_OK, EXIT_PEER_LOST, EXIT_SIGTERM, EXIT_USER
from trainserve.train.checkpoint import load, load_best, weights_digest

pytestmark = pytest.mark.slow

TINY = {"epochs": 3, "batchSize": 8, "lr": 0.02, "warmupEpochs": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of 21 pictures: 33 for training (4 steps of 8, one left), 9 for validation."""
    return pictures.write_classes(tmp_path_factory.mktemp("data"), {"red": 21, "blue": 21}, size=8)


def spec(folder, **train):
    data = train.pop("data", {})
    return classifier(folder, data=data, model={"imageSize": 8}, train={**TINY, **train})


def digest(ranks: Ranks) -> str:
    best = load_best(ranks.output, pytest.fail)
    assert best is not None
    return weights_digest(best.weights)


def newest(ranks: Ranks) -> str:
    folder = sorted((ranks.output / "checkpoints").glob("step-*"))[-1]
    return weights_digest(load(folder).weights)


@pytest.fixture(scope="module")
def straight(folder, tmp_path_factory):
    """An undisturbed run of two ranks."""
    with Ranks(spec(folder), tmp_path_factory.mktemp("straight"), 2) as ranks:
        assert ranks.codes() == [EXIT_OK, EXIT_OK], ranks.log()
    return ranks


def test_a_run_leaves_events_checkpoints_bundle_and_archive(straight):
    start, done = straight.events("start")[0], straight.events("done")[0]
    assert (start["worldSize"], start["trainSamples"], start["valSamples"], start["stepsPerEpoch"]) == (2, 33, 9, 4)
    assert (start["imageSize"], start["stem"], start["classes"], start["device"]) == (8, "small", 2, "cpu")
    epochs = straight.events("epoch")
    assert [event["epoch"] for event in epochs] == [1, 2, 3]
    assert max(event["top1"] for event in epochs) == done["top1"]
    assert all(0 <= event["top1"] <= event["top5"] == 1 for event in epochs)
    assert (straight.output / "bundle" / "weights.safetensors").exists()
    assert (straight.output / "tiny.mar").exists()
    rows = [json.loads(line) for line in (straight.output / "predictions.jsonl").read_text().splitlines()]
    assert len({row["picture"] for row in rows}) == len(rows) == 9
    assert sum(row["class"] == row["predicted"] for row in rows) / 9 == pytest.approx(done["top1"])
    assert list((straight.output / "tensorboard").glob("events.*"))
    assert len(list((straight.output / "checkpoints").glob("step-*"))) in {2, 3}


def test_ddp_05_the_left_out_picture_is_said_once(straight):
    said = [event["message"] for event in straight.events("notice")]
    assert sum("1 of 33 pictures" in message for message in said) == 1


def test_ddp_06_steps_straight_equal_kill_and_resume_bit_for_bit(folder, straight, tmp_path):
    """SIGKILL in the middle of an epoch, after a checkpoint; then the rest."""
    output = tmp_path / "killed"
    with Ranks(spec(folder, checkpointEverySteps=3), output, 2) as ranks:
        ranks.wait_for(lambda: any(event["step"] >= 6 for event in ranks.events("checkpoint")))
        ranks.kill(signal.SIGKILL, ranks=(1,))
        codes = ranks.codes(30)
    assert codes == [EXIT_PEER_LOST, -signal.SIGKILL], ranks.log()
    assert "lost contact with another rank" in ranks.log()
    with Ranks(spec(folder, checkpointEverySteps=3), output, 2) as ranks:
        assert ranks.codes() == [EXIT_OK, EXIT_OK], ranks.log()
    assert len(ranks.events("resume")) == 1
    assert newest(ranks) == newest(straight)
    assert digest(ranks) == digest(straight)
    assert ranks.events("done")[-1]["valLoss"] == straight.events("done")[-1]["valLoss"]
    assert ranks.events("epoch")[-1]["trainLoss"] == pytest.approx(straight.events("epoch")[-1]["trainLoss"], abs=1e-9)


def test_sigterm_on_one_rank_checkpoints_all_and_the_rest_gives_the_same(folder, straight, tmp_path):
    output = tmp_path / "stopped"
    with Ranks(spec(folder), output, 2) as ranks:
        ranks.wait_for(lambda: ranks.events("epoch"))
        ranks.kill(signal.SIGTERM, ranks=(1,))
        assert ranks.codes(60) == [EXIT_SIGTERM, EXIT_SIGTERM], ranks.log()
    stopped = ranks.events("stopped")[-1]
    assert ranks.events("checkpoint")[-1]["step"] == stopped["step"]
    with Ranks(spec(folder), output, 2) as ranks:
        assert ranks.codes() == [EXIT_OK, EXIT_OK], ranks.log()
    assert ranks.events("resume")[-1]["step"] == stopped["step"]
    assert newest(ranks) == newest(straight)


# Validation batches that take long, so that a signal certainly comes between two.
SLOW_VALIDATION = """
import sys, time, torch
from trainserve.train import loop
before = loop._problems
def slow(*arguments):
    if torch.is_inference_mode_enabled():
        time.sleep(1.5)
    return before(*arguments)
loop._problems = slow
from trainserve.launch import work
sys.exit(work.main())
"""


def test_sigterm_in_a_validation_ends_it_for_all_ranks_and_loses_nothing(tmp_path):
    """Rank 0 has one batch more than rank 1, which gets the signal: 65 pictures in batches of 32."""
    folder = pictures.write_classes(tmp_path / "data", {"red": 39, "blue": 39}, size=8)
    train = {"epochs": 2, "batchSize": 4}
    made = classifier(folder, data={"valSplit": 0.83}, model={"imageSize": 8}, train=train)
    with Ranks(made, tmp_path / "straight", 2) as undisturbed:
        assert undisturbed.codes() == [EXIT_OK, EXIT_OK], undisturbed.log()
    assert undisturbed.events("start")[0]["valSamples"] == 65
    output = tmp_path / "stopped"
    with Ranks(made, output, 2, program=("-c", SLOW_VALIDATION)) as ranks:
        ranks.wait_for(lambda: ranks.events("checkpoint"))
        ranks.kill(signal.SIGTERM, ranks=(1,))
        assert ranks.codes(60) == [EXIT_SIGTERM, EXIT_SIGTERM], ranks.log()
    step = ranks.events("stopped")[-1]["step"]
    assert step == ranks.events("start")[0]["stepsPerEpoch"] == ranks.events("checkpoint")[-1]["step"]
    assert ranks.events("epoch") == []
    with Ranks(made, output, 2) as ranks:
        assert ranks.codes() == [EXIT_OK, EXIT_OK], ranks.log()
    assert ranks.events("resume")[-1]["step"] == step
    assert [event["epoch"] for event in ranks.events("epoch")] == [1, 2]
    assert newest(ranks) == newest(undisturbed)
    assert digest(ranks) == digest(undisturbed)


def test_a_finished_run_started_again_only_packages(straight, folder):
    before = digest(straight)
    (straight.output / "tiny.mar").unlink()
    with Ranks(spec(folder), straight.output, 2) as ranks:
        assert ranks.codes() == [EXIT_OK, EXIT_OK], ranks.log()
    assert len(ranks.events("epoch")) == 3
    assert digest(ranks) == before
    assert (straight.output / "tiny.mar").exists()


def test_one_process_trains_without_a_port(folder, tmp_path):
    with Ranks(spec(folder, epochs=1), tmp_path, 1, port=1) as ranks:
        assert ranks.codes() == [EXIT_OK], ranks.log()
    assert ranks.events("start")[0]["worldSize"] == 1


def test_img_03_strict_names_the_picture_and_skip_goes_on(tmp_path):
    folder = pictures.write_classes(tmp_path / "data", {"a": 15, "b": 15}, size=32, suffix=".jpg")
    broken = folder / "a" / "0003.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    with Ranks(spec(folder, epochs=1), tmp_path / "strict", 2) as ranks:
        assert ranks.codes() == [EXIT_DATA, EXIT_DATA], ranks.log()
    assert "a/0003.jpg: truncated" in ranks.log()
    assert "Traceback" not in ranks.log()
    error = json.loads((ranks.output / "error-0.json").read_text())
    assert "a/0003.jpg" in error["message"]["message"]
    with Ranks(spec(folder, epochs=1, data={"skipBad": True}), tmp_path / "skip", 2) as ranks:
        assert ranks.codes() == [EXIT_OK, EXIT_OK], ranks.log()
    assert any(event["message"] == "1 picture skipped: a/0003.jpg" for event in ranks.events("notice"))


def test_a_loss_that_is_no_number_stops_with_a_sentence(folder, tmp_path):
    with Ranks(spec(folder, lr=100.0, warmupEpochs=0, epochs=20), tmp_path, 2) as ranks:
        codes = ranks.codes()
    assert codes == [1, 1], ranks.log()
    assert "the loss became" in ranks.log()
    assert "hint: use a smaller --lr" in ranks.log()


def test_a_checkpoint_of_another_network_is_refused(straight, folder):
    other = classifier(folder, model={"imageSize": 24}, train=TINY)
    with Ranks(other, straight.output, 1) as ranks:
        assert ranks.codes() == [EXIT_USER], ranks.log()
    assert "spec.model.imageSize: checkpoint step-00000012 has 8, this run has 24" in ranks.log()


def test_a_dead_peer_shows_at_once(folder, tmp_path):
    with Ranks(spec(folder, epochs=500), tmp_path, 2) as ranks:
        ranks.wait_for(lambda: ranks.events("checkpoint"))
        ranks.kill(signal.SIGKILL, ranks=(0,))
        begun = time.monotonic()
        assert ranks.codes(30) == [-signal.SIGKILL, EXIT_PEER_LOST]
        assert time.monotonic() - begun < 10
