"""Run folders: names, creation, states read with and without a supervisor."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names
from trainserve.local import control, rundir
from trainserve.local.records import Damaged
from trainserve.local.rundir import RunDir


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path))
    return tmp_path


def snapshot(run: RunDir, *conditions: tuple[str, str], pods: list[dict[str, Any]] | None = None) -> None:
    job = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": run.name},
        "status": {"conditions": [{"type": kind, "status": status} for kind, status in conditions]},
    }
    run.objects_path.write_text(json.dumps({"objects": [job, *(pods or [])]}))


def test_a_name_is_given_once() -> None:
    run = rundir.create("flowers")
    assert run.output.is_dir()
    with pytest.raises(UserError, match="a run named 'flowers' exists already") as error:
        rundir.create("flowers")
    assert "flowers-2" in str(error.value.hint)


@pytest.mark.parametrize("name", ["", "../x", "A", "1st-run", "a/b", "a" * 55, "x-", ".", "a b"])
def test_what_is_no_name_never_becomes_a_path(name: str, home: Path) -> None:
    with pytest.raises(UserError, match="is no name for a run"):
        rundir.create(name)
    with pytest.raises(UserError, match="no such run"):
        rundir.open_run(name)
    assert not (home / "runs").exists()


def test_open_run_guesses_what_was_meant() -> None:
    rundir.create("digits")
    assert rundir.open_run("local://digits").name == rundir.open_run("digits").name == "digits"
    with pytest.raises(UserError, match=r"no such run 'digts' in .*, did you mean 'digits'\?"):
        rundir.open_run("digts")
    with pytest.raises(UserError, match="only runs on this machine"):
        rundir.open_run("k8s://default/digits")


@pytest.mark.parametrize(
    ("base", "name"),
    [("Flowers", "flowers"), ("my data (1)", "my-data-1"), ("102flowers", "run-102flowers"), ("äö", "run")],
)
def test_free_name_is_made_of_the_folders_name(base: str, name: str) -> None:
    assert rundir.free_name(base) == name
    rundir.create(name)
    assert rundir.free_name(base) == f"{name}-2"


def test_a_long_free_name_is_a_name() -> None:
    for _ in range(3):
        rundir.create(rundir.free_name("x" * 80))
    assert len(rundir.all_runs()) == 3


def test_states() -> None:
    run = rundir.create("a")
    assert run.state() == "Interrupted"
    lock = run.lock()
    assert run.alive()
    assert run.state() == "Pending"
    with pytest.raises(UserError, match="run 'a' is going on"):
        run.lock()
    snapshot(run, ("Created", "True"), ("Running", "True"))
    assert run.state() == "Running"
    os.close(lock)
    assert not run.alive()
    assert run.state() == "Interrupted"
    snapshot(run, ("Created", "True"), ("Running", "False"), ("Suspended", "True"))
    assert run.state() == "Suspended"
    snapshot(run, ("Created", "True"), ("Running", "False"), ("Failed", "True"))
    assert run.state() == "Failed"


def test_logs_of_all_generations_in_order_and_of_one_rank() -> None:
    run = rundir.create("a")
    for pod, generation, ranks in [("a-worker-0", 1, [2, 3]), ("a-master-0", 1, [0, 1]), ("a-master-0", 10, [0, 1])]:
        folder = run.pods_path / f"{pod}.g{generation}"
        folder.mkdir()
        (folder / "pytorch.log").write_text("line\n")
        (folder / "init-pytorch.log").write_text("")
        (folder / "ranks.json").write_text(json.dumps([{"rank": rank} for rank in ranks]))
    order = ["a-master-0.g1", "a-worker-0.g1", "a-master-0.g10"]
    assert [log.parent.name for log in run.log_files()] == order
    assert [log.parent.name for log in run.log_files(3)] == ["a-worker-0.g1"]
    assert run.log_files(7) == []


def test_ranks_are_those_of_running_pods_under_a_living_supervisor() -> None:
    run = rundir.create("a")
    pods = []
    for index, phase in enumerate(("Running", "Failed")):
        labels = {names.LABEL_GENERATION: "2"}
        pods.append(
            {"kind": "Pod", "metadata": {"name": f"a-worker-{index}", "labels": labels}, "status": {"phase": phase}}
        )
        (run.pods_path / f"a-worker-{index}.g2").mkdir()
        (run.pods_path / f"a-worker-{index}.g2" / "ranks.json").write_text(json.dumps([{"rank": index, "pid": 7}]))
    snapshot(run, ("Running", "True"), pods=pods)
    assert run.ranks() == []
    lock = run.lock()
    assert run.ranks() == [{"rank": 0, "pid": 7, "pod": "a-worker-0"}]
    os.close(lock)


def test_nobody_answers(tmp_path: Path) -> None:
    run = rundir.create("a")
    with pytest.raises(EnvironmentProblem, match="nobody answers for run 'a'"):
        control.request(run, "get")
    run.supervisor_path.write_text(json.dumps({"socket": str(tmp_path / "gone")}))
    with pytest.raises(EnvironmentProblem, match="nobody answers for run 'a'"):
        control.request(run, "get")


@pytest.mark.parametrize("text", ["", "{", '{"foo": 3}', "[1, 2]", "null", "\0", "[" * 100_000, '{"objects": [3]}'])
def test_a_damaged_snapshot_is_told_with_its_path(text: str) -> None:
    run = rundir.create("flowers")
    run.objects_path.write_text(text)
    with pytest.raises(Damaged, match=r"flowers/objects.json is damaged"):
        run.state()


def test_a_damaged_job_and_a_folder_in_its_place() -> None:
    run = rundir.create("flowers")
    run.job_path.write_text("[]")
    with pytest.raises(Damaged, match="it holds no job"):
        run.read_job()
    run.job_path.unlink()
    run.job_path.mkdir()
    with pytest.raises(Damaged, match="it is a folder"):
        run.read_job()


@pytest.mark.parametrize("text", ["", "[]", "null", '"x"'])
def test_a_damaged_address_of_a_supervisor_is_none(text: str) -> None:
    run = rundir.create("flowers")
    run.supervisor_path.write_text(text)
    assert run.supervisor() == {}
