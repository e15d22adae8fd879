from __future__ import annotations

import dataclasses
import errno
import json
import os
import resource

import pytest
import torch

from trainserve.errors import EnvironmentProblem, SpecError
from trainserve.train import checkpoint as checkpoints
from trainserve.train.checkpoint import (
    Checkpoint,
    TornCheckpoint,
    check_matches,
    latest,
    load,
    load_best,
    record_validation,
    save,
)
from trainserve.train.preprocess import Preprocessing


def make(step: int, value: float = 1.0, best: str | None = None, **fields) -> Checkpoint:
    spec = {"spec": {"train": {"batchSize": 8, "seed": 0}}}
    checkpoint = Checkpoint(
        weights={"w": torch.full((4, 3), value), "n": torch.tensor(7)},
        arch="resnet18",
        stem="small",
        image_size=16,
        classes=["a", "b"],
        preprocessing=Preprocessing.for_size(16, 100),
        classifier=spec,
        data_digest="d" * 64,
        step=step,
        steps_per_epoch=10,
        metrics={"top1": 0.5},
        best={"checkpoint": best, "top1": 0.5} if best else None,
        epoch_sums=[1.0, 2.0, 3.0, 4.0],
        seconds=1.5,
        optimizer={"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        rng=torch.get_rng_state(),
    )
    return dataclasses.replace(checkpoint, **fields)


def keep(step: int, output, **options):
    return save(make(step, float(step)), output, **{"keep_last": 3, **options})


def validate(step: int, output, top1: float, best: int, keep_last: int = 3) -> None:
    record_validation(
        output,
        step,
        metrics={"top1": top1},
        best={"checkpoint": checkpoints.folder_name(best), "top1": top1},
        seconds=2.5,
        keep_last=keep_last,
    )


def names(output) -> list[str]:
    return sorted(path.name for path in (output / "checkpoints").iterdir())


def test_everything_comes_back(tmp_path):
    before = make(42)
    after = load(save(before, tmp_path, keep_last=1))
    assert torch.equal(after.weights["w"], before.weights["w"])
    assert torch.equal(after.rng, before.rng)
    assert after.optimizer["param_groups"] == before.optimizer["param_groups"]
    for name in checkpoints.META_FIELDS:
        assert getattr(after, name) == getattr(before, name)
    assert after.preprocessing == before.preprocessing
    assert (after.epoch, after.name) == (4, "step-00000042")


def test_every_field_is_stored():
    stored = {*checkpoints.META_FIELDS, *checkpoints.STATE_FIELDS, "preprocessing"}
    assert stored == {field.name for field in dataclasses.fields(Checkpoint)}


def test_no_checkpoint_is_none_and_silent(tmp_path):
    assert latest(tmp_path, pytest.fail) is None


TEARS = {
    "zero bytes": lambda folder: (folder / "state.pt").write_bytes(b""),
    "half": lambda folder: (folder / "state.pt").write_bytes((folder / "state.pt").read_bytes()[:100]),
    "a flipped bit": lambda folder: (folder / "state.pt").write_bytes(b"\0" + (folder / "state.pt").read_bytes()[1:]),
    "no state": lambda folder: (folder / "state.pt").unlink(),
    "no meta": lambda folder: (folder / "meta.json").unlink(),
    "empty meta": lambda folder: (folder / "meta.json").write_text(""),
    "list meta": lambda folder: (folder / "meta.json").write_text("[]"),
    "another version": lambda folder: (folder / "meta.json").write_text(
        json.dumps({**json.loads((folder / "meta.json").read_text()), "format": 99})
    ),
}


@pytest.mark.parametrize("tear", TEARS)
def test_ddp_06_a_torn_checkpoint_is_reported_and_passed_over(tmp_path, tear):
    keep(1, tmp_path)
    TEARS[tear](keep(2, tmp_path))
    said: list[str] = []
    found = latest(tmp_path, said.append)
    assert found is not None
    assert found.step == 1
    assert len(said) == 1
    assert "step-00000002 is torn" in said[0]


def test_ddp_06_a_torn_newest_does_not_take_the_place_of_a_whole_one(tmp_path):
    """Step 100 is torn, the run goes on from 90 and saves 95: that one stays, and the next resume starts there."""
    keep(90, tmp_path)
    (keep(100, tmp_path) / "state.pt").write_bytes(b"")
    assert latest(tmp_path, lambda _: None).step == 90
    keep(95, tmp_path, keep_last=1)
    assert names(tmp_path) == ["step-00000095", "torn-step-00000100"]
    assert latest(tmp_path, pytest.fail).step == 95
    keep(100, tmp_path, keep_last=2)  # the torn one holds no slot either
    assert names(tmp_path) == ["step-00000095", "step-00000100", "torn-step-00000100"]


def test_the_checkpoint_just_written_stays_whatever_lies_there(tmp_path):
    keep(100, tmp_path)
    keep(95, tmp_path, keep_last=1)
    assert "step-00000095" in names(tmp_path)


def test_ddp_06_a_kill_right_after_the_rename_does_not_package_another_network_than_the_best(tmp_path):
    """Only meta.json says which is the best: the checkpoint and the word are on disk together, or neither."""
    keep(10, tmp_path, keep_last=1)
    validate(10, tmp_path, 0.6, 10)
    save(make(20, best="step-00000010", validated=False), tmp_path, keep_last=1)
    validate(20, tmp_path, 0.9, 20, keep_last=1)  # killed here
    assert latest(tmp_path, pytest.fail).best == {"checkpoint": "step-00000020", "top1": 0.9}
    save(make(30, best="step-00000020"), tmp_path, keep_last=1)  # after the resume, no better one
    assert names(tmp_path) == ["step-00000020", "step-00000030"]
    best = load_best(tmp_path, pytest.fail)
    assert best.step == 20
    assert best.metrics == {"top1": 0.9}


def test_the_validation_is_added_to_a_checkpoint_that_waits_for_it(tmp_path):
    save(make(10, validated=False), tmp_path, keep_last=1)
    before = latest(tmp_path, pytest.fail)
    assert (before.validated, before.epoch_sums) == (False, [1.0, 2.0, 3.0, 4.0])
    validate(10, tmp_path, 0.75, 10)
    after = latest(tmp_path, pytest.fail)
    assert (after.validated, after.metrics, after.epoch_sums, after.seconds) == (True, {"top1": 0.75}, [], 2.5)
    assert torch.equal(after.weights["w"], before.weights["w"])


def test_ddp_06_a_plain_file_in_its_place_is_torn_too(tmp_path):
    keep(1, tmp_path)
    (tmp_path / "checkpoints" / "step-00000009").write_bytes(b"")
    found = latest(tmp_path, lambda _: None)
    assert found is not None
    assert found.step == 1


def test_ddp_06_when_all_are_torn_starting_again_is_said(tmp_path):
    for step in (1, 2):
        (keep(step, tmp_path) / "state.pt").write_bytes(b"")
    said: list[str] = []
    assert latest(tmp_path, said.append) is None
    assert "none of the 2 checkpoints" in said[-1]
    assert "step 0" in said[-1]


def test_ddp_06_a_crash_at_any_write_leaves_the_older_ones_whole(tmp_path, monkeypatch):
    """Every fsync and rename of a save is made to fail once, as if the process were killed there."""
    keep(1, tmp_path)

    class Killed(BaseException):
        pass

    calls = 0
    for target in range(1, 30):
        calls = 0

        def dying(original, at=target):
            def call(*arguments, **named):
                nonlocal calls
                calls += 1
                if calls == at:
                    raise Killed
                return original(*arguments, **named)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", dying(os.fsync))
            patch.setattr(os, "rename", dying(os.rename))
            patch.setattr(os, "replace", dying(os.replace))
            try:
                keep(target + 1, tmp_path)
                validate(target + 1, tmp_path, 0.5, target + 1)
                finished = True
            except Killed:
                finished = False
        found = latest(tmp_path, pytest.fail)
        assert found is not None
        assert found.step >= 1
        if finished:
            assert found.step == target + 1
            break
    assert target > 5
    assert not list((tmp_path / "checkpoints").rglob(".*"))


def test_a_full_disk_is_said_and_older_ones_stay(tmp_path, monkeypatch):
    keep(1, tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EnvironmentProblem, match="No space left on device"):
            keep(2, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    keep(1, tmp_path)
    for step in (2, 3, 4):
        save(make(step, best="step-00000001"), tmp_path, keep_last=2)
    assert names(tmp_path) == ["step-00000001", "step-00000003", "step-00000004"]
    best = load_best(tmp_path, pytest.fail)
    assert best is not None
    assert best.step == 1


def test_a_lost_best_falls_back_to_the_newest_and_says_so(tmp_path):
    keep(1, tmp_path)
    save(make(2, best="step-00000001"), tmp_path, keep_last=3)
    (tmp_path / "checkpoints" / "step-00000001" / "state.pt").unlink()
    said: list[str] = []
    found = load_best(tmp_path, said.append)
    assert found is not None
    assert found.step == 2
    assert "best checkpoint cannot be read" in said[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "resnet50"}, "spec.model.arch: checkpoint step-00000001 has resnet18, this run has resnet50"),
        ({"classes": ["a", "c"]}, r"2 classes \(only there: \['b'\]\).*2 classes \(only here: \['c'\]\)"),
        ({"classes": ["b", "a"]}, "another order"),
        ({"batch_size": 16}, "batchSize: .* has 8, this run has 16"),
        ({"image_size": 32}, "has 16, this run has 32"),
        ({"data_digest": "e" * 64}, "set of pictures"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(change, message):
    with pytest.raises(SpecError, match=message):
        check_matches(make(1), change)
    check_matches(make(1), {"arch": "resnet18", "classes": ["a", "b"], "batch_size": 8, "seed": 0})


def test_objects_in_a_checkpoint_are_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch /tmp/should-not-exist",)

    folder = keep(1, tmp_path)
    meta = json.loads((folder / "meta.json").read_text())
    torch.save({"weights": Evil()}, folder / "state.pt")
    meta |= {"bytes": (folder / "state.pt").stat().st_size, "sha256": checkpoints.sha256_of(folder / "state.pt")}
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(TornCheckpoint):
        load(folder)


def test_the_digest_sees_names_types_shapes_and_bits():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    same = {"b": torch.ones(1), "a": torch.zeros(3, 2).T.contiguous()}
    assert checkpoints.weights_digest(base) == checkpoints.weights_digest(same)
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": -torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1).double()},
    ]
    assert len({checkpoints.weights_digest(weights) for weights in [base, *others]}) == 5


def test_a_disk_that_is_full_in_mid_write_is_said_as_such(tmp_path):
    keep(1, tmp_path)
    large = dataclasses.replace(make(2), weights={"w": torch.zeros(1_000_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # as full as a disk: Python ignores SIGXFSZ
    try:
        with pytest.raises(
            EnvironmentProblem, match=r"checkpoint of step 2 could not be written to .*: File too large"
        ):
            checkpoints.save(large, tmp_path, keep_last=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["step-00000001"]


def test_a_file_where_the_checkpoints_belong_is_not_told_as_a_full_disk(tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(EnvironmentProblem, match="could not be written") as refused:
        checkpoints.save(make(1), tmp_path / "checkpoints", keep_last=3)
    assert "free some space" not in refused.value.hint
    assert refused.value.hint.endswith("the run goes on from its last whole checkpoint with --resume")
