"""What `gc` finds, what it never finds, and that finding changes nothing."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest

from trainserve.cli.gc import gc_command
from trainserve.errors import EXIT_ENVIRONMENT, UserError
from trainserve.local import garbage, kept, rundir
from trainserve.local.rundir import RunDir
from trainserve.machine import locks, temporary

DAY = 86400.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(temporary, "FALLBACK", tmp_path / "tmp")
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def a_run(name: str, state: str, *, days: float = 30, steps: tuple[int, ...] = (2, 4, 6, 8), best: int = 4) -> RunDir:
    """A run as training leaves it, that ended so many days ago."""
    run = rundir.create(name)
    job = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name},
        "status": {"conditions": [{"type": state, "status": "True"}]},
    }
    run.objects_path.write_text(json.dumps({"objects": [job]}))
    for step in steps:
        folder = run.output / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "state.pt").write_bytes(bytes(8192))
        (folder / "meta.json").write_text(json.dumps({"best": {"checkpoint": f"step-{best:08d}", "top1": 0.9}}))
    (run.output / "checkpoints" / "torn-step-00000001").mkdir()
    for generation in (1, 2, 10):
        (run.pods_path / f"{name}-master-0.g{generation}").mkdir()
        (run.pods_path / f"{name}-master-0.g{generation}" / "pytorch.log").write_text("said\n")
    if state == "Succeeded":
        (run.output / "bundle").mkdir()
        (run.output / "bundle" / "model.json").write_text("{}")
        (run.output / f"{name}.mar").write_bytes(bytes(100))
    ended = time.time() - days * DAY
    os.utime(run.objects_path, (ended, ended))
    return run


def names_of(found: garbage.Garbage, kind: str) -> list[str]:
    return sorted(item.path.name for item in found.items if item.kind == kind)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_of_a_succeeded_run_the_best_and_the_newest_checkpoint_the_bundle_and_the_archive_stay(home: Path) -> None:
    run = a_run("done", "Succeeded")
    before = tree(home)
    found = garbage.find()
    assert tree(home) == before
    assert names_of(found, "checkpoint") == ["step-00000002", "step-00000006"]
    assert names_of(found, "torn checkpoint") == ["torn-step-00000001"]
    assert names_of(found, "log") == ["done-master-0.g1", "done-master-0.g2"]
    gone = garbage.remove(found)
    assert gone.removed == found.items
    assert gone.freed == found.bytes >= 2 * 8192
    assert [path.name for path in kept.checkpoints(run.output)] == ["step-00000008", "step-00000004"]
    assert (run.output / "bundle" / "model.json").exists()
    assert (run.output / "done.mar").exists()
    assert garbage.find().items == ()


@pytest.mark.parametrize(("keep", "going"), [(0, [2, 4, 6, 8]), (1, [2, 6]), (2, [2]), (3, [2]), (4, []), (9, [])])
def test_keep(keep: int, going: list[int]) -> None:
    a_run("done", "Succeeded")
    assert names_of(garbage.find(keep=keep), "checkpoint") == [f"step-{step:08d}" for step in going]


def test_a_succeeded_run_without_its_bundle_keeps_all_checkpoints() -> None:
    run = a_run("done", "Succeeded")
    (run.output / "bundle" / "model.json").unlink()
    assert names_of(garbage.find(keep=0), "checkpoint") == []


@pytest.mark.parametrize("state", ["Running", "Suspended", "Failed"])  # Running without a supervisor is Interrupted
def test_a_run_that_is_not_finished_keeps_every_checkpoint(state: str) -> None:
    a_run("open", state)
    found = garbage.find(keep=0)
    assert names_of(found, "checkpoint") == []
    assert names_of(found, "torn checkpoint") == ["torn-step-00000001"]


def test_a_run_that_goes_on_or_is_damaged_is_not_looked_at() -> None:
    lock = a_run("going", "Succeeded").lock()
    a_run("broken", "Succeeded").objects_path.write_text("{")
    try:
        assert garbage.find(older_than_s=0).items == ()
    finally:
        os.close(lock)


def test_what_has_come_to_life_meanwhile_stays() -> None:
    run = a_run("again", "Succeeded")
    found = garbage.find()
    lock = run.lock()
    try:
        assert garbage.remove(found).removed == ()
    finally:
        os.close(lock)
    assert len(kept.checkpoints(run.output)) == 4


def test_only_what_ended_long_ago_and_a_clock_that_was_set_back_makes_nothing_old() -> None:
    a_run("new", "Succeeded", days=2)
    a_run("future", "Succeeded", days=-3)
    assert garbage.find().items == ()
    assert {item.run for item in garbage.find(older_than_s=DAY).items} == {"new"}


def test_what_killed_writers_left_goes_and_what_is_being_written_stays(home: Path) -> None:
    run = a_run("open", "Suspended", days=0)
    checkpoints = run.output / "checkpoints"
    dead, living = checkpoints / ".step-00000010.0a1b.tmp", checkpoints / ".step-00000012.0a1b.tmp"
    for folder in (dead, living):
        folder.mkdir()
        (folder / "state.pt").write_bytes(bytes(4096))
    (run.path / ".objects.json.77.tmp").write_text("{")
    descriptor = os.open(living, os.O_RDONLY)
    assert locks.try_lock(descriptor)
    found = garbage.find()
    assert names_of(found, "unfinished") == [".objects.json.77.tmp", dead.name]
    assert len(garbage.remove(found).removed) == 2
    os.close(descriptor)
    assert living.exists()


def test_records_and_old_logs_of_dead_servers_but_no_lock(home: Path) -> None:
    for name in ("dead", "living"):
        folder = home / "serving" / name
        folder.mkdir(parents=True)
        for file in ("server.json", "lock", "torchserve.log", "torchserve.log.1"):
            (folder / file).write_text("x")
        os.utime(folder / "torchserve.log.1", (1, 1))
    lock = locks.take(home / "serving" / "living" / "lock")
    found = garbage.find()
    assert sorted((item.kind, item.path.parent.name, item.path.name) for item in found.items) == [
        ("log", "dead", "torchserve.log.1"),
        ("server", "dead", "server.json"),
    ]
    assert len(garbage.remove(found).removed) == 2
    assert sorted(os.listdir(home / "serving" / "dead")) == ["lock", "torchserve.log"]
    assert lock is not None
    os.close(lock)


def test_temporary_folders_of_dead_processes(tmp_path: Path) -> None:
    folder = tmp_path / "tmp" / "trainserve-serving-abcdefgh"
    folder.mkdir()
    os.utime(folder, (1, 1))
    found = garbage.find()
    ours = [item for item in found.items if item.path.is_relative_to(tmp_path)]
    assert [(item.kind, item.path) for item in ours] == [("temporary", folder)]
    assert garbage.remove(garbage.Garbage(tuple(ours))).removed == tuple(ours)
    assert not folder.exists()


def test_negative_numbers_are_refused() -> None:
    for wrong in ({"keep": -1}, {"older_than_s": -1.0}):
        with pytest.raises(UserError, match="may be negative"):
            garbage.find(**wrong)  # type: ignore[arg-type]


def test_folders_are_called_as_training_calls_them() -> None:
    from trainserve.train import checkpoint

    assert kept.FOLDER == checkpoint.FOLDER
    assert (kept._PREFIX, kept._TORN) == (checkpoint.PREFIX, checkpoint.TORN)


def test_what_the_disk_does_not_let_go_is_told_with_its_reason_and_the_rest_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run("done", "Succeeded")
    a_run("other", "Succeeded")
    take = locks.take

    def refuse(path: Path, **options: float) -> int | None:
        if path.parent.name == "done":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return take(path, **options)

    monkeypatch.setattr(locks, "take", refuse)
    assert gc_command(["--yes"], standalone_mode=False) == EXIT_ENVIRONMENT
    said = capsys.readouterr().err
    assert "step-00000002 stays: Read-only file system\n" in said
    assert "in use again" not in said
    assert {item.run for item in garbage.find().items} == {"done"}


def test_a_run_whose_lock_is_no_lock_keeps_no_other_from_being_tidied() -> None:
    a_run("done", "Succeeded")
    odd = a_run("odd", "Suspended", days=0)
    odd.lock_path.symlink_to(odd.lock_path)
    assert not odd.alive()
    assert {item.run for item in garbage.find().items} == {"done"}
