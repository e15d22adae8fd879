"""A run that is stopped leaves no process, whatever its ranks and its supervisor do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.runs import alive, wait_until
from support.smallruns import HEAD, SLEEP, SLEEP_ONCE, ended, home_of_runs, new_run, started, told
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names
from trainserve.local import control, ending, process, start
from trainserve.local.rundir import RunDir
from trainserve.machine.processes import state_of

pytestmark = pytest.mark.slow

DEAF = HEAD + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay('deaf')\ntime.sleep(60)\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from home_of_runs(tmp_path, monkeypatch)


def going(name: str, source: str = SLEEP, nodes: int = 1) -> tuple[RunDir, int, list[int]]:
    """A run with its supervisor's pid and its processes' pids, all of them started."""
    run = new_run(name, source, nodes=nodes)
    supervisor = start.start(run, detach=True)
    pids = started(run, 1, nodes)
    wait_until(lambda: run.state() == "Running", "the snapshot has the pods")
    return run, supervisor, pids


def nothing_left(run: RunDir, pids: list[int]) -> bool:
    return not run.alive() and not any(map(alive, pids)) and not process.marked(run.pods_path)


def test_what_ignores_sigterm_is_killed_when_its_time_is_over() -> None:
    run, _, pids = going("deaf", DEAF, nodes=2)
    wait_until(lambda: sum(what == "deaf" for what, *_ in told(run)) == 2, "both ignore SIGTERM")
    assert ending.ask(run, names.SUSPEND_BY_USER, grace_s=0.5)
    assert ended(run) == "Suspended"
    assert nothing_left(run, pids)
    assert "still running 0.5 s after they were asked to stop" in run.supervisor_log.read_text()


def test_a_second_stop_without_grace_kills_at_once() -> None:
    run, _, pids = going("twice", DEAF)
    wait_until(lambda: any(what == "deaf" for what, *_ in told(run)), "it ignores SIGTERM")
    assert ending.ask(run, names.SUSPEND_BY_USER)  # 20 s
    assert ending.ask(run, names.SUSPEND_BY_USER, grace_s=0)
    assert ending.ask(run, names.SUSPEND_BY_USER)  # later never lengthens it again
    assert ended(run, 10) == "Suspended"
    assert nothing_left(run, pids)


def test_the_default_grace_of_a_stop_leaves_time_for_proof_within_half_a_minute() -> None:
    assert ending.ANSWER_S + ending.CANCEL_S < 30
    assert ending.ANSWER_S + ending.KILL_S * 2 < 30


def test_a_grace_that_is_no_time_is_refused_and_stops_nothing() -> None:
    run, _, _ = going("grace")
    for grace in (-1, "soon", True, float("inf"), float("nan"), 1e9):
        with pytest.raises(UserError, match="graceSeconds"):
            control.request(run, "suspend", reason="x", graceSeconds=grace)
    assert not control.request(run, "get")["job"]["spec"]["runPolicy"].get("suspend")


def test_a_stopped_rank_and_a_stopped_shim_end() -> None:
    run, _, pids = going("frozen", nodes=2)
    shim = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (pids[0], shim, pids[1]):
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda pid=pid: state_of(pid) == "T", "it is stopped")
    assert ending.ask(run, names.SUSPEND_BY_USER, grace_s=5)
    assert ended(run) == "Suspended"
    assert nothing_left(run, pids)
    # They were woken for SIGTERM, so both ended in order and nobody had to be killed.
    assert [what for what, *_ in told(run)].count("stop") == 2


@pytest.mark.slow
def test_a_frozen_supervisor_is_killed_and_the_run_goes_on_from_there() -> None:
    run, supervisor, pids = going("stuck", SLEEP_ONCE, nodes=2)
    os.kill(supervisor, signal.SIGSTOP)
    assert ending.stop(run, names.SUSPEND_BY_USER) is False
    assert nothing_left(run, [supervisor, *pids])
    assert run.state() == "Interrupted"
    assert run.why_interrupted() == "its supervisor ended: it did not answer, and was killed to stop the run"
    assert {pod["status"]["phase"] for pod in run.pods()} == {"Unknown"}
    start.start(run, resume=True, detach=True)
    assert ended(run) == "Succeeded"


def test_a_supervisor_that_cannot_be_reached_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "ANSWER_S", 0.3)
    run, supervisor, pids = going("silent")
    Path(run.supervisor()["socket"]).unlink()  # somebody has emptied /tmp
    assert ending.stop(run, names.SUSPEND_BY_USER) is False
    assert nothing_left(run, [supervisor, *pids])


@pytest.mark.parametrize("record", ["[]", '{"pid": 4194304, "started": "1", "boot": "old"}'])
def test_a_supervisor_whose_record_was_damaged_is_known_by_its_command(
    record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "ANSWER_S", 0.3)
    run, supervisor, pids = going("lost")
    run.supervisor_path.write_text(record)
    assert ending.stop(run, names.SUSPEND_BY_USER) is False
    assert nothing_left(run, [supervisor, *pids])


def test_everything_stopped_at_once_ends_too() -> None:
    run, supervisor, pids = going("ice")
    shim = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (supervisor, shim, *pids):
        os.kill(pid, signal.SIGSTOP)
    ending.stop(run, names.SUSPEND_BY_USER)
    assert nothing_left(run, [supervisor, shim, *pids])


def test_a_lock_that_a_stranger_holds_is_told_and_nobody_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "ANSWER_S", 0.2)
    monkeypatch.setattr(ending, "KILL_S", 0.2)
    run = new_run("held", SLEEP)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        # A record of another boot with a pid that is now somebody else's.
        run.supervisor_path.write_text(f'{{"pid": {stranger.pid}, "started": "1", "boot": "old", "socket": ""}}')
        lock = run.lock()
        try:
            with pytest.raises(EnvironmentProblem, match=r"cannot be stopped: somebody holds .*/lock"):
                ending.stop(run, names.SUSPEND_BY_USER)
        finally:
            os.close(lock)
        assert stranger.poll() is None
        stranger.kill()
