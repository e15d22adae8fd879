"""A run's output in a bucket: what is sent, in which order, and what is brought back."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from support.buckets import Failing, contents, in_memory
from support.runs import wait_until
from trainserve.errors import EnvironmentProblem
from trainserve.launch import store as stores
from trainserve.launch.comeback import restore
from trainserve.launch.store import Keeper, Store, opened
from trainserve.train.grace import Grace


@pytest.fixture
def bucket():
    with in_memory() as found:
        yield found


def checkpoint(output: Path, step: int, state: bytes = b"weights", best: int | None = None) -> Path:
    folder = output / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "state.pt").write_bytes(state)
    meta = {"sha256": hashlib.sha256(state).hexdigest(), "bytes": len(state), "step": step}
    meta["best"] = {"checkpoint": f"step-{best or step:08d}", "top1": 0.5}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def sent(store: Store) -> list[str]:
    names = store.changed()
    store.send(names)
    return names


def test_what_speaks_of_others_is_sent_after_them(bucket, tmp_path):
    checkpoint(tmp_path, 10)
    for name in ("events.jsonl", "bundle/model.json", "bundle/weights.safetensors", "run.mar", "bundle/golden/00.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = sent(Store(bucket, tmp_path))
    assert names[:2] == ["checkpoints/step-00000010/state.pt", "checkpoints/step-00000010/meta.json"]
    assert names[-1] == "events.jsonl"
    assert names.index("bundle/weights.safetensors") < names.index("bundle/model.json")
    assert set(contents(bucket)) == set(names)


def test_only_what_changes_is_sent_again_and_unfinished_files_never(bucket, tmp_path):
    store = Store(bucket, tmp_path)
    (tmp_path / "events.jsonl").write_text("one\n")
    (tmp_path / "data-check.json").write_text("{}")
    (tmp_path / ".events.jsonl.abcd.tmp").write_text("half")
    (tmp_path / "checkpoints" / ".step-00000001.abcd.tmp").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".step-00000001.abcd.tmp" / "state.pt").write_text("half")
    (tmp_path / "checkpoints" / "torn-step-00000002").mkdir()
    (tmp_path / "checkpoints" / "torn-step-00000002" / "state.pt").write_text("torn")
    assert sent(store) == ["data-check.json", "events.jsonl"]
    assert sent(store) == []
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write("two\n")
    assert sent(store) == ["events.jsonl"]
    assert contents(bucket)["events.jsonl"] == b"one\ntwo\n"


def test_a_checkpoint_that_retention_removed_goes_from_the_bucket_once_a_newer_one_is_there(bucket, tmp_path):
    store = Store(bucket, tmp_path)
    old = checkpoint(tmp_path, 10)
    sent(store)
    shutil.rmtree(old)
    sent(store)
    assert "checkpoints/step-00000010/state.pt" in contents(bucket)  # it is the newest that there is
    checkpoint(tmp_path, 20)
    sent(store)
    assert {name.split("/")[1] for name in contents(bucket)} == {"step-00000020"}


def test_the_newest_whole_checkpoint_and_the_best_are_brought_back(bucket, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    checkpoint(one, 10, b"the best")
    checkpoint(one, 20, b"middle", best=10)
    checkpoint(one, 30, b"newest", best=10)
    (one / "events.jsonl").write_text("told\n")
    sent(Store(bucket, one))
    assert restore(Store(bucket, two)) == "step-00000030"
    assert {path.name for path in (two / "checkpoints").iterdir()} == {"step-00000010", "step-00000030"}
    assert (two / "checkpoints/step-00000030/state.pt").read_bytes() == b"newest"
    assert (two / "events.jsonl").read_text() == "told\n"
    assert sent(Store(bucket, two)) == []  # nothing of it is sent back
    assert restore(Store(bucket, two)) is None  # nor brought back again
    checkpoint(two, 40)
    sent(Store(bucket, two))
    # The one in the middle, which did not come, goes as if retention had removed it here.
    assert {name.split("/")[1] for name in contents(bucket) if "/" in name} == {
        "step-00000010", "step-00000030", "step-00000040",
    }  # fmt: skip


def test_names_that_lead_out_of_the_output_are_passed_over(bucket, tmp_path, caplog, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "deep" / "two"
    checkpoint(one, 10)
    sent(Store(bucket, one))
    there = list(bucket.list())
    there.append(replace(there[0], name="../../outside.txt", size=1))
    monkeypatch.setattr(bucket, "list", lambda *_: iter(there))
    assert restore(Store(bucket, two)) == "step-00000010"
    assert not list(tmp_path.rglob("outside.txt"))
    assert "'../../outside.txt' is no name of a file in a data set: passed over" in caplog.text


@pytest.mark.parametrize("damage", ["no state", "half a state", "other bytes", "no meta", "meta is no JSON"])
def test_a_torn_checkpoint_is_never_taken_for_whole(bucket, tmp_path, damage):
    one, two = tmp_path / "one", tmp_path / "two"
    checkpoint(one, 10, b"before")
    checkpoint(one, 20, b"whole!")
    sent(Store(bucket, one))
    folder = "checkpoints/step-00000020"
    if damage == "no state":
        bucket.remove([f"{folder}/state.pt"])
    elif damage == "half a state":
        bucket.write(f"{folder}/state.pt", b"who")
    elif damage == "other bytes":
        bucket.write(f"{folder}/state.pt", b"WHOLE!")
    elif damage == "no meta":
        bucket.remove([f"{folder}/meta.json"])
    else:
        bucket.write(f"{folder}/meta.json", b"{")
    assert restore(Store(bucket, two)) == "step-00000010"
    assert [path.name for path in (two / "checkpoints").iterdir()] == ["step-00000010"]


def test_no_whole_checkpoint_brings_nothing_back(bucket, tmp_path):
    bucket.write("checkpoints/step-00000020/meta.json", b"{")
    bucket.write("events.jsonl", b"of a run that has nothing\n")
    assert restore(Store(bucket, tmp_path)) is None
    assert not (tmp_path / "events.jsonl").exists()


def test_a_bucket_that_fails_each_third_time_gets_everything(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "RETRY_S", 0.01)
    monkeypatch.setattr(stores, "LOOK_S", 0.01)
    failing = Failing(bucket)
    keeper = Keeper(Store(failing, tmp_path))
    for step in (10, 20, 30):
        checkpoint(tmp_path, step)
        (tmp_path / "events.jsonl").write_text(f"{step}\n")
        time.sleep(0.05)
    assert keeper.close(well=True) is None
    found = contents(bucket)
    assert found["events.jsonl"] == b"30\n"
    assert {name.split("/")[1] for name in found if "/" in name} == {f"step-{step:08d}" for step in (10, 20, 30)}
    for step in (10, 20, 30):  # never a meta.json before its state
        state, meta = (f"checkpoints/step-{step:08d}/{name}" for name in ("state.pt", "meta.json"))
        assert failing.written.index(state) < failing.written.index(meta)


def test_a_result_that_cannot_be_stored_is_an_error_after_the_time_for_it(bucket, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(stores, "RETRY_S", 0.01)
    monkeypatch.setattr(stores, "LAST_S", 0.05)
    (tmp_path / "run.mar").write_bytes(b"x")
    keeper = Keeper(Store(Failing(bucket, every=1), tmp_path))
    lost = keeper.close(well=True)
    assert isinstance(lost, EnvironmentProblem)
    assert lost.message == "it is not in the mood"


def test_a_checkpoint_that_hardly_gets_to_the_bucket_before_the_end_of_a_pod_is_told_once(
    bucket, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(stores, "LOOK_S", 0.01)
    keeper = Keeper(Store(bucket, tmp_path), Grace(0.0))
    for step in (10, 20):
        checkpoint(tmp_path, step)
        wait_until(lambda step=step: f"checkpoints/step-{step:08d}/meta.json" in contents(bucket), "it is sent")
    assert keeper.close(well=True) is None
    told = [record.getMessage() for record in caplog.records if "it does not fit" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(f"sending a checkpoint to {bucket.url} took ")
    assert "a pod that is stopped has 0 s for the step in progress and a checkpoint" in told[0]


@pytest.mark.parametrize(("grace", "given_up_s"), [(None, 60.0), (Grace(900.0), 900.0), (Grace(30.0), 30.0)])
def test_after_a_stop_it_is_tried_for_as_long_as_the_pod_has(bucket, tmp_path, monkeypatch, grace, given_up_s):
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    (tmp_path / "events.jsonl").write_text("one\n")
    keeper = Keeper(Store(Failing(bucket, every=1), tmp_path), grace)
    monkeypatch.setattr(stores.time, "monotonic", lambda: now)
    monkeypatch.setattr(stores.time, "sleep", sleep)
    assert isinstance(keeper.close(well=False), EnvironmentProblem)
    assert given_up_s - stores.RETRY_S <= now <= given_up_s


def test_a_checkpoint_is_sent_at_once_and_what_grows_every_half_a_minute(bucket, tmp_path):
    store = Store(bucket, tmp_path)
    assert store.is_due(["events.jsonl"], now=100.0)
    store.was_sent(100.0)
    assert not store.is_due(["events.jsonl"], now=100.0 + stores.SEND_S - 1)
    assert store.is_due(["events.jsonl"], now=100.0 + stores.SEND_S)
    assert store.is_due(["checkpoints/step-00000001/meta.json"], now=101.0)


def test_without_the_variable_there_is_no_store(tmp_path):
    assert opened({}) is None
    found = opened({"TRAINSERVE_STORE": "memory://a/b", "TRAINSERVE_OUTPUT": str(tmp_path)})
    assert found is not None
    assert found.output == tmp_path
