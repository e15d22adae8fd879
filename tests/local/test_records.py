"""The files of a run's folder: read, told as damaged with advice that works, or left out, whatever is in them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from support.tiny import tiny_run
from trainserve.client.train import resumable
from trainserve.local import records, rundir
from trainserve.local.records import Damaged
from trainserve.local.rundir import RunDir

SPEC = "metadata: {name: mine}\nspec: {data: {path: /pictures}}\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path))
    return tmp_path


def torn(run: RunDir, *files: str) -> RunDir:
    for file in files:
        (run.path / file).write_text('{"half')
    return run


@pytest.mark.parametrize(
    ("damaged", "spec", "hint"),
    [
        (["objects.json"], None, "platform resume mine goes on from its newest checkpoint"),
        (["objects.json", "job.json"], SPEC, "platform resume mine goes on from its newest checkpoint"),
        (["objects.json", "job.json"], "spec: {", "train again under another --name"),
        (["objects.json", "job.json"], None, "train again under another --name"),
        (["job.json"], None, "train again under another --name"),
    ],
)
def test_advice_is_what_works(damaged: list[str], spec: str | None, hint: str) -> None:
    run = torn(tiny_run("mine", ""), *damaged)
    if spec is not None:
        run.write_spec(spec)
    with pytest.raises(Damaged) as problem:
        run.known_job()
    assert hint in str(problem.value.hint)
    if "resume" in hint:
        assert resumable("mine").path == run.path
    else:
        with pytest.raises(Damaged):
            resumable("mine")


def test_nobody_is_told_to_resume_a_run_that_goes_on() -> None:
    run = torn(tiny_run("mine", ""), "objects.json")
    lock = run.lock()
    try:
        with pytest.raises(Damaged) as problem:
            run.state()
    finally:
        os.close(lock)
    assert problem.value.hint == "the run goes on: look again in a moment; platform cancel mine stops it"


def job(**changes: Any) -> dict[str, Any]:
    return {"kind": "PyTorchJob", "metadata": {"name": "mine"}, "spec": {}, "status": {}, **changes}


@pytest.mark.parametrize(
    "item",
    [
        None,
        "x",
        {"kind": 3},
        {"kind": "PyTorchJob"},
        job(metadata=[]),
        job(metadata={"name": 5}),
        job(metadata={"name": "mine", "labels": "x"}),
        job(status=None),
        job(status={"conditions": {}}),
        job(status={"conditions": [{"type": "Running"}]}),
        job(status={"conditions": [{"type": ["Running"], "status": "True"}]}),
        job(status={"progress": []}),
        job(status={"restarts": "many"}),
        job(status={"restarts": True}),
        {"kind": "Pod", "metadata": {"name": "a"}, "status": {"containerStatuses": [{"state": {"terminated": {}}}]}},
        {"kind": "Event", "metadata": {"name": "a"}, "involvedObject": "pod"},
    ],
)
def test_what_is_read_has_the_shape_that_its_readers_rely_on(item: Any) -> None:
    run = tiny_run("mine", "")
    run.objects_path.write_text(json.dumps({"objects": [item]}))
    with pytest.raises(Damaged, match="it holds no snapshot of objects"):
        run.state()


@pytest.mark.parametrize("snapshot", [{"objects": [job()]}, {"format": 99, "objects": [job()]}])
def test_a_snapshot_that_no_server_can_begin_with_is_set_aside(snapshot: dict[str, Any]) -> None:
    run = tiny_run("mine", "")
    run.objects_path.write_text(json.dumps(snapshot))
    (run.path / "objects.json.damaged").mkdir()  # of an earlier time, and a folder at that
    assert run.set_damaged_aside()
    assert json.loads((run.path / "objects.json.damaged").read_text()) == snapshot
    assert run.job() is None


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("[]", {}),
        ('{"pid": "x", "started": 5, "boot": "b"}', {"boot": "b"}),
        ('{"pid": true, "socket": 5}', {}),
        ('{"socket": "/s", "ended": {"code": "x", "message": "m"}}', {"socket": "/s"}),
        ('{"ended": {"code": 3, "message": "m"}}', {"ended": {"code": 3, "message": "m"}}),
    ],
)
def test_of_a_supervisor_counts_what_can_be_understood(text: str, known: dict[str, Any]) -> None:
    run = rundir.create("mine")
    run.supervisor_path.write_text(text)
    assert run.supervisor() == known


@pytest.mark.parametrize("text", ["", '[{"rank', "{}", "[3]", '[{"rank": "x"}]', '[{"pid": 3}]'])
def test_torn_ranks_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "ranks.json").write_text(text)
    assert records.read_ranks(tmp_path) == []
