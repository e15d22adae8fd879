"""Whole runs on this machine with small commands in place of training: real supervisor, controller, kubelet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.runs import alive, clean_env, job, wait_until
from support.smallruns import HEAD, MEET, SLEEP, SLEEP_ONCE, ended, home_of_runs, new_run, started, told
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names
from trainserve.local import control, process, rundir, start
from trainserve.local.supervisor import is_over

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from home_of_runs(tmp_path, monkeypatch)


def test_a_run_succeeds(home: Path) -> None:
    run = new_run("fine", HEAD + "print('hello from', node)", nodes=2)
    start.start(run, detach=True)
    assert ended(run) == "Succeeded"
    assert [pod["metadata"]["name"] for pod in run.pods()] == ["fine-master-0", "fine-worker-0"]
    logs = [path for path in run.log_files() if path.name == "pytorch.log"]
    assert [log.read_text() for log in logs] == ["hello from 0\n", "hello from 1\n"]
    assert process.marked(run.pods_path) == []
    with pytest.raises(EnvironmentProblem, match="nobody answers for run 'fine'"):
        control.request(run, "get")
    with pytest.raises(UserError, match="has succeeded"):
        start.start(run, resume=True)


def test_a_run_fails_and_says_why(home: Path) -> None:
    run = new_run("bad", HEAD + "sys.exit(65) if node == '1' else time.sleep(60)", nodes=2)
    start.start(run, detach=True)
    assert ended(run) == "Failed"
    job = run.job()
    assert job is not None
    assert "exit code 65" in job["status"]["conditions"][-1]["message"]
    assert process.marked(run.pods_path) == []


def test_a_killed_rank_restarts_the_gang_and_no_old_process_meets_a_new_one(home: Path) -> None:
    run = new_run("again", SLEEP_ONCE, nodes=3)
    start.start(run, detach=True)
    pids = started(run, 1, 3)
    os.kill(pids[1], signal.SIGKILL)
    assert ended(run) == "Succeeded"
    job = run.job()
    assert job is not None
    assert job["status"]["restarts"] == 1
    first_new = min(when for what, gen, _, _, when in told(run) if what == "start" and gen == 2)
    stopped = [when for what, gen, _, _, when in told(run) if what == "stop" and gen == 1]
    assert len(stopped) == 2
    assert max(stopped) < first_new


@pytest.mark.slow
def test_suspend_stops_and_resume_goes_on(home: Path) -> None:
    run = new_run("pause", SLEEP_ONCE, nodes=2)
    start.start(run, detach=True)
    started(run, 1, 2)
    assert run.state() == "Running"
    with pytest.raises(UserError, match="is going on"):
        start.start(run, resume=True)
    answer = control.request(run, "suspend", reason=names.SUSPEND_BY_USER)
    assert answer["job"]["spec"]["runPolicy"]["suspend"] is True
    assert ended(run) == "Suspended"
    assert sorted(node for what, _, node, _, _ in told(run) if what == "stop") == [0, 1]
    start.start(run, resume=True, detach=True)
    assert ended(run) == "Succeeded"
    job = run.job()
    assert job is not None
    assert job["status"].get("restarts", 0) == 0
    assert names.ANNOTATION_SUSPEND_REASON not in job["metadata"].get("annotations", {})


def test_no_process_survives_a_killed_supervisor_and_resume_finishes(home: Path) -> None:
    run = new_run("killed", SLEEP_ONCE, nodes=2)
    pid = start.start(run, detach=True)
    pids = started(run, 1, 2)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(rank) for rank in pids), "ranks are gone", 10)
    wait_until(lambda: not process.marked(run.pods_path), "nothing of the run is left", 10)
    assert run.state() == "Interrupted"
    assert run.ranks() == []
    start.start(run, resume=True, detach=True)
    assert ended(run) == "Succeeded"
    job = run.job()
    assert job is not None
    assert job["status"].get("restarts", 0) == 0


def test_a_failed_run_is_resumed_as_a_new_job_of_the_next_generation(home: Path) -> None:
    run = new_run("retry", HEAD + "sys.exit(1 if generation == '1' else 0)", nodes=1)
    start.start(run, detach=True)
    assert ended(run) == "Failed"
    before = run.job()
    start.start(run, resume=True, detach=True)
    assert ended(run) == "Succeeded"
    after = run.job()
    assert before is not None
    assert after is not None
    assert before["metadata"]["uid"] != after["metadata"]["uid"]
    assert (run.path / "history" / f"job-{before['metadata']['uid']}.json").exists()
    assert [(what, gen) for what, gen, *_ in told(run)] == [("start", 1), ("start", 2)]


def test_sigterm_to_the_supervisor_suspends(home: Path) -> None:
    run = new_run("term", SLEEP, nodes=1)
    pid = start.start(run, detach=True)
    started(run, 1, 1)
    os.kill(pid, signal.SIGTERM)
    assert ended(run) == "Suspended"
    assert [what for what, *_ in told(run)] == ["start", "stop"]


def test_the_end_of_the_command_that_started_it_suspends(home: Path) -> None:
    run = new_run("owned", SLEEP, nodes=1)
    source = (
        "import sys, time; from trainserve.local import rundir, start\n"
        "start.start(rundir.open_run('owned')); print('up', flush=True); time.sleep(60)"
    )
    env = clean_env(TRAINSERVE_HOME=str(home))
    with subprocess.Popen([sys.executable, "-c", source], env=env, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        started(run, 1, 1)
        owner.kill()
    assert ended(run) == "Suspended"
    job = run.job()
    assert job is not None
    assert names.SUSPEND_BY_OWNER in job["status"]["conditions"][-1]["message"]


def test_ddp_04_two_runs_at_once_have_their_own_ports(home: Path) -> None:
    source = HEAD + "print(os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']); time.sleep(0.5)"
    runs = [new_run(name, source, nodes=2) for name in ("one", "two")]
    for run in runs:
        start.start(run, detach=True)
    assert [ended(run) for run in runs] == ["Succeeded", "Succeeded"]
    seen = [{path.read_text() for path in run.log_files() if path.name == "pytorch.log"} for run in runs]
    assert all(len(addresses) == 1 for addresses in seen)
    assert seen[0] != seen[1]


def test_status_shows_ranks_and_pods_of_a_running_job(home: Path) -> None:
    run = rundir.create("ranks")
    script = run.path / "script.py"
    script.write_text(f"{MEET}import time; time.sleep(60)\n")
    command = [sys.executable, "-m", "trainserve.launch", str(script)]
    run.write_job(job("ranks", command, nodes=2, nproc=2))
    start.start(run, detach=True)
    wait_until(lambda: len(run.ranks()) == 4, "all ranks are known")
    answer = control.request(run, "get")
    assert [row["rank"] for row in answer["ranks"]] == [0, 1, 2, 3]
    assert {row["pod"] for row in answer["ranks"]} == {"ranks-master-0", "ranks-worker-0"}
    assert all(alive(row["pid"]) for row in answer["ranks"])
    assert len(answer["pods"]) == 2
    with pytest.raises(UserError, match="not a request"):
        control.request(run, "dance")


@pytest.mark.slow
def test_progress_of_rank_0_is_in_the_jobs_status(home: Path) -> None:
    event = '{"time": 1.0, "kind": "step", "epoch": 1, "step": 7, "loss": 0.5}\n'
    run = new_run(
        "steps",
        HEAD + "time.sleep(0.5); open(os.environ['RUN'] + '/output/events.jsonl', 'w').write("
        f"{event!r}); time.sleep(60)",
    )
    start.start(run, detach=True)
    wait_until(lambda: "progress" in (run.job() or {}).get("status", {}), "progress is written")
    wait_until(lambda: (run.job() or {})["status"]["progress"].get("step") == 7, "the step is seen")


def test_a_supervisor_that_cannot_start_says_why(home: Path) -> None:
    run = rundir.create("broken")
    run.write_job({"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "broken"}, "spec": {}})
    began = time.monotonic()
    with pytest.raises(EnvironmentProblem, match="pytorchReplicaSpecs"):
        start.start(run, detach=True)
    assert time.monotonic() - began < 10
    assert not run.alive()


@pytest.mark.parametrize(
    ("condition", "suspend", "over"),
    [
        (names.SUSPENDED, True, True),
        (names.SUSPENDED, False, False),  # resumed, and the controller has not looked at it yet
        (names.RUNNING, True, False),
        (names.SUCCEEDED, False, True),
        (names.FAILED, True, True),
    ],
)
def test_over_is_finished_or_suspended_and_to_be_suspended(condition: str, suspend: bool, over: bool) -> None:
    job = {
        "spec": {"runPolicy": {"suspend": suspend}},
        "status": {"conditions": [{"type": condition, "status": "True"}]},
    }
    assert is_over(job) is over
