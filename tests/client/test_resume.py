"""Going on with runs whose files were damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.tiny import tiny_run
from trainserve.client import train
from trainserve.client.client import Client
from trainserve.client.follow import Outcome
from trainserve.client.listener import Lines
from trainserve.local.rundir import RunDir
from trainserve.observe.summary import summarize

SPEC = "metadata: {name: mine}\nspec: {data: {path: /pictures}, train: {nodes: 2}}\n"


@pytest.fixture(autouse=True)
def starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "go", lambda run, *_, **__: Outcome(summarize("x", "Succeeded", {}, []), run.path, 0))


@pytest.mark.parametrize("how", ["torn", "missing", "a folder"])
def test_a_damaged_job_is_made_anew_of_the_spec_beside_it(how: str, home: Path) -> None:
    run = tiny_run("mine", "")
    run.write_spec(SPEC)
    run.objects_path.write_text("{")
    run.job_path.unlink()
    if how == "torn":
        run.job_path.write_text('{"half')
    elif how == "a folder":
        run.job_path.mkdir()
    said: list[str] = []
    Client(Lines(said.append)).resume("mine")
    assert len(said) == 1
    assert said[0].startswith(f"{run.job_path} is damaged: ")
    assert said[0].endswith(f"it is made anew from {run.spec_path}")
    replicas = run.read_job()["spec"]["pytorchReplicaSpecs"]
    assert sum(replica["replicas"] for replica in replicas.values()) == 2
    assert (run.path / "job.json.damaged").exists() == (how != "missing")


def test_a_run_whose_folder_was_renamed_goes_on_under_its_new_name_and_in_its_new_place(home: Path) -> None:
    old = tiny_run("mine", "")
    old.write_spec(SPEC)
    old.objects_path.write_text(
        '{"format": 1, "resourceVersion": 3, "objects": [{"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", '
        '"metadata": {"name": "mine", "namespace": "local"}}]}'
    )
    run = RunDir(old.path.rename(old.path.with_name("yours")))
    planned = train.going_on(run)
    said: list[str] = []
    Client(Lines(said.append)).resume("yours")
    assert said == [
        f"{run.job_path} is damaged: it is the job of run 'mine': it is made anew from {run.spec_path}",
    ]
    job = run.read_job()
    assert job == planned
    assert job["metadata"]["name"] == "yours"
    assert str(run.output) in json.dumps(job)
    assert str(old.path) not in json.dumps(job)
    assert run.set_damaged_aside()  # as the start does: the snapshot has the job of the old name
    assert run.known_job() == job
