"""Going on with runs whose files were damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.tiny import tiny_run
from trainserve.client import train
from trainserve.client.client import Client
from trainserve.client.follow import Outcome
from trainserve.client.listener import Lines
from trainserve.observe.summary import summarize


@pytest.mark.parametrize("how", ["torn", "missing", "a folder"])
def test_a_damaged_job_is_made_anew_of_the_spec_beside_it(
    how: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "go", lambda run, *_, **__: Outcome(summarize("x", "Succeeded", {}, []), run.path, 0))
    run = tiny_run("mine", "")
    run.write_spec("metadata: {name: mine}\nspec: {data: {path: /pictures}, train: {nodes: 2}}\n")
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
