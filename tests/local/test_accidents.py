"""What happens to runs on a machine: folders removed, clocks set back, restarts, full disks, closed terminals."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import command, environment
from support.pictures import write_classes
from support.runs import alive, clean_env, wait_until
from support.smallruns import HEAD, SLEEP, SLEEP_ONCE, ended, home_of_runs, new_run, started
from support.tinydisk import tiny_disk
from trainserve.client.follow import follow
from trainserve.client.listener import Listener
from trainserve.client.train import resumable
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names
from trainserve.local import rundir, start
from trainserve.local.records import Damaged
from trainserve.local.rundir import RunDir
from trainserve.machine.processes import Identity

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from home_of_runs(tmp_path, monkeypatch)


def going(name: str, source: str = SLEEP, nodes: int = 1) -> tuple[RunDir, list[int]]:
    """A run and the pids of its supervisor and its nodes."""
    run = new_run(name, source, nodes=nodes)
    supervisor = start.start(run, detach=True)
    pids = [supervisor, *started(run, 1, nodes)]
    wait_until(lambda: run.state() == "Running", "the snapshot has the pods")
    return run, pids


class Remover(Listener):
    """Removes the folder as soon as the run is followed, its lock first, and a part of it only later."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def following(self, run: str) -> None:
        (self.folder / "lock").unlink()
        threading.Timer(0.5, lambda: shutil.rmtree(self.folder, ignore_errors=True)).start()


def test_a_removed_folder_ends_its_run_and_stays_away() -> None:
    # As rank 0 does with its checkpoints, the node makes its folders again.
    source = HEAD + "while True: os.makedirs(os.environ['RUN'] + '/output/checkpoints', exist_ok=True)\n"
    run, pids = going("removed", source)
    shutil.rmtree(run.path, ignore_errors=True)
    wait_until(lambda: not any(map(alive, pids)), "all processes end", 3)
    assert not run.path.exists()
    assert rundir.all_runs() == []


def test_who_follows_a_run_whose_folder_is_just_being_removed_is_told_so() -> None:
    run, _ = going("watched")
    with pytest.raises(EnvironmentProblem, match="run 'watched' is no longer there"):
        follow(run, Remover(run.path))
    wait_until(lambda: not run.path.exists(), "the folder is gone")


def test_a_renamed_folder_ends_its_run_which_can_be_seen_under_its_new_name() -> None:
    run, pids = going("before")
    renamed = RunDir(run.path.rename(run.path.with_name("after")))
    wait_until(lambda: not any(map(alive, pids)), "all processes end", 3)
    assert renamed.state() == "Interrupted"
    with pytest.raises(EnvironmentProblem, match="run 'before' is no longer there"):
        run.lock()


def test_a_removed_lock_file_ends_the_run_because_nobody_could_see_it_any_more() -> None:
    run, pids = going("unlocked")
    run.lock_path.unlink()
    wait_until(lambda: not any(map(alive, pids)), "all processes end", 3)
    assert run.state() == "Interrupted"
    assert "was removed while the run went on" in run.why_interrupted()


def test_a_lock_that_was_taken_of_a_folder_that_went_meanwhile_counts_for_nothing(home: Path) -> None:
    run = new_run("gone", SLEEP)
    held = run.lock()

    def remove_it() -> None:
        run.path.rename(home / "runs" / ".gone.old")
        os.close(held)

    timer = threading.Timer(0.2, remove_it)
    timer.start()
    with pytest.raises(EnvironmentProblem, match="no longer there"):
        run.lock()
    timer.join()
    assert not run.path.exists()


def test_a_machine_that_was_restarted() -> None:
    run, pids = going("rebooted", SLEEP_ONCE)
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: not any(map(alive, pids)), "all processes end")
    assert run.why_interrupted() == "its supervisor was killed"
    # What a restart leaves: a record of another boot, a socket that nobody has, a pid that is now a stranger's.
    record = run.supervisor()
    run.supervisor_path.write_text(json.dumps({**record, "pid": os.getpid(), "boot": "of-yesterday"}))
    assert run.state() == "Interrupted"
    assert run.why_interrupted() == "the machine was restarted while it ran"
    assert run.ranks() == []
    process = run.supervisor_process()
    assert process is not None
    assert not process.is_running()
    start.start(run, resume=True, detach=True)
    assert ended(run) == "Succeeded"


def test_a_pid_that_came_again_is_nobodys_supervisor() -> None:
    run, pids = going("reused")
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: not run.alive(), "the supervisor is gone")
    record = run.supervisor_process()
    assert record is not None
    assert not Identity(os.getpid(), record.started, record.boot).kill(signal.SIGUSR1)  # else this test would end here
    assert run.state() == "Interrupted"


@pytest.mark.parametrize("text", ["", '{"objects": ['])
def test_a_damaged_snapshot_is_told_and_a_resume_goes_on_all_the_same(text: str) -> None:
    run, _ = going("torn", SLEEP_ONCE)
    os.kill(run.supervisor()["pid"], signal.SIGKILL)
    wait_until(lambda: not run.alive(), "the supervisor is gone")
    run.objects_path.write_text(text)
    with pytest.raises(Damaged) as problem:
        run.state()
    assert problem.value.hint == "platform resume torn goes on from its newest checkpoint"
    assert resumable("torn").path == run.path  # so that `platform resume` comes as far as this
    start.start(run, resume=True, detach=True)
    assert ended(run) == "Succeeded"
    assert (run.path / "objects.json.damaged").read_text() == text
    assert sorted(path.name for path in run.pods_path.iterdir()) == ["torn-master-0.g1", "torn-master-0.g2"]


def test_two_resumes_at_once_are_one() -> None:
    run, pids = going("race")
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: not run.alive(), "the supervisor is gone")
    results: list[object] = []

    def resume() -> None:
        try:
            results.append(start.start(run, resume=True, detach=True))
        except UserError as error:
            results.append(error.message)

    threads = [threading.Thread(target=resume) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [result for result in results if isinstance(result, str)]
    assert refused == ["run 'race' is going on"] * 2
    assert len({result for result in results if isinstance(result, int)}) == 1
    assert run.alive()


STARTER = """\
import sys, time
from trainserve.local import rundir, start
start.start(rundir.open_run(sys.argv[1]), detach=sys.argv[2] == "detach")
print("up", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["detach", "foreground"])
def test_a_closed_terminal(how: str, home: Path) -> None:
    run = new_run("window", SLEEP)
    terminal, window = pty.openpty()
    command = [sys.executable, "-c", STARTER, run.name, how]
    env = clean_env(TRAINSERVE_HOME=str(home))
    # `setsid --ctty`: the window is the terminal of the command, as a shell's is.
    with subprocess.Popen(["setsid", "--ctty", *command], stdin=window, stdout=window, stderr=window, env=env) as owner:
        os.close(window)
        assert b"up" in os.read(terminal, 1000)
        pids = started(run, 1, 1)
        os.close(terminal)  # SIGHUP
        assert owner.wait(10) == -signal.SIGHUP
    if how == "detach":
        time.sleep(0.3)
        assert run.alive()
        assert all(map(alive, pids))
    else:
        assert ended(run) == "Suspended"
        assert names.SUSPEND_BY_OWNER in (run.job() or {})["status"]["conditions"][-1]["message"]


@pytest.mark.parametrize("folder", ["--with blanks, ümläuts 図 and a'b\"c$d;e", "x" * 200 + "/" + "y" * 200])
def test_a_home_of_any_name(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / folder))
    run = new_run("anywhere", HEAD + "print(os.getcwd())", nodes=2)
    start.start(run, detach=True)
    assert ended(run) == "Succeeded"
    assert run.log_files()[-1].read_text().strip().startswith(str(tmp_path / folder))


FILL = """\
def fill(name):
    with open(os.environ["RUN"] + "/" + name, "wb", buffering=0) as file:
        while True: file.write(b"x" * 4096)
with open(os.environ["RUN"] + "/output/events.jsonl", "w") as file:  # which the controller is to write into the status
    file.write('{"time": 1.0, "kind": "step", "epoch": 1, "step": 7, "loss": 0.5}\\n')
try: fill("filler")
except OSError as error: open(os.environ["GO"] + ".full", "w").write(str(error))
while not os.path.exists(os.environ["GO"]): time.sleep(0.05)
os.unlink(os.environ["RUN"] + "/filler")
time.sleep(0.5)
"""
TESTS = str(Path(__file__).parents[1])
ON_DISK = """\
import os, sys
from trainserve.local import rundir, start
from support.smallruns import HEAD, new_run, ended
run = new_run("full", HEAD + sys.argv[1])
job = run.read_job()
job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["env"].append(
    {"name": "GO", "value": sys.argv[2]})
run.write_job(job)
start.start(run, detach=True)
print(ended(run, 60))
"""


@pytest.mark.slow
def test_a_full_disk_does_not_end_a_supervisor_which_writes_when_there_is_room_again(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with tiny_disk(tmp_path / "disk", "2m") as disk:
        env = clean_env(TRAINSERVE_HOME=str(disk.path / "home"), PYTHONPATH=TESTS, TMPDIR=str(tmp_path))
        words = [*disk.prefix, sys.executable, "-c", ON_DISK, FILL, str(go)]
        folder = disk.inside / "home" / "runs" / "full"
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as command:
            log = folder / "supervisor.log"
            wait_until(lambda: "objects.json cannot be written: [Errno 28]" in _text(log), "a snapshot fails", 20)
            go.touch()
            said, _ = command.communicate(timeout=60)
        assert (tmp_path / "go.full").read_text().startswith("[Errno 28] No space left")
        assert _text(log).count("objects.json cannot be written") == 1, "told once, not at every try"
        assert said == "Succeeded\n"
        assert '"step": 7' in _text(folder / "objects.json")


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_read_only_home_can_be_looked_at_and_says_so_when_it_is_to_be_changed(tmp_path: Path) -> None:
    pictures = write_classes(tmp_path / "shapes", {"red": 10, "blue": 10})
    with tiny_disk(tmp_path / "disk", "2m") as disk:

        def on_it(*words: object) -> subprocess.CompletedProcess[str]:
            env = environment(disk.path / "home")
            command_line = [*disk.prefix, *command(*words)]
            return subprocess.run(command_line, env=env, capture_output=True, text=True, check=False, timeout=60)

        run = disk.inside / "home" / "runs" / "old"
        (run / "output").mkdir(parents=True)
        (run / "job.json").write_text('{"metadata": {"name": "old"}, "spec": {}}')
        disk.remount("ro")
        assert on_it("list", "-o", "name").stdout == "old\n"
        train = ("train", "--data", pictures, "--name", "new", "--batch-size", 4)
        for words in (("rm", "old"), ("resume", "old"), train):
            done = on_it(*words)
            assert done.returncode == 3, done.stderr
            assert "Read-only file system" in done.stderr
            assert "hint: it is mounted read-only" in done.stderr
            assert "Traceback" not in done.stderr
