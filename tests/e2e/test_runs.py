"""Runs that are disturbed end as an undisturbed one: the same command, real processes, the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.command import command, environment, platform
from support.live import SMALL, Live, gone, interrupt, until
from support.pictures import write_classes
from support.tinydisk import tiny_disk
from trainserve.machine.files import sha256_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("data") / "shapes", {"red": 20, "green": 20, "blue": 20})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Live:
    live = Live(tmp_path_factory.mktemp("home"), "calm", pictures)
    with live.training("-o", "json") as process:
        _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return live


def test_a_finished_run_has_its_bundle_its_archive_and_no_process(undisturbed: Live) -> None:
    status = undisturbed.status()
    assert status["state"] == "Succeeded"
    assert status["restarts"] == 0
    assert [condition["type"] for condition in status["conditions"]] == ["Created", "Running", "Succeeded"]
    assert Path(status["bundle"], "weights.safetensors").is_file()
    assert Path(status["archive"]).is_file()
    assert list(undisturbed.folder.glob("output/tensorboard/events.*"))
    assert gone(undisturbed)


def test_validation_counts_every_picture_once(undisturbed: Live) -> None:
    start = next(event for event in undisturbed.events() if event["kind"] == "start")
    assert (start["trainSamples"], start["valSamples"]) == (48, 12)
    lines = (undisturbed.folder / "output" / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 12


def test_evaluating_the_run_gives_its_own_numbers(undisturbed: Live) -> None:
    done = platform("evaluate", "calm", "-o", "json", "--save", undisturbed.home / "all.json", home=undisturbed.home)
    assert done.returncode == 0, done.stderr
    found, whole = json.loads(done.stdout), json.loads((undisturbed.home / "all.json").read_text())
    last = next(event for event in undisturbed.events() if event["kind"] == "done")
    assert (found["top1"], found["top5"]) == (last["top1"], last["top5"])
    assert found["loss"] == pytest.approx(last["valLoss"], abs=1e-4)
    lines = (undisturbed.folder / "output" / "predictions.jsonl").read_text().splitlines()
    told = {row["picture"]: row["predicted"] for row in map(json.loads, lines)}
    assert {row["picture"]: row["predicted"] for row in whole["predictions"]} == told


def test_sigkill_of_a_rank_restarts_the_gang_once_and_changes_no_bit(
    undisturbed: Live, pictures: Path, tmp_path: Path
) -> None:
    live = Live(tmp_path, "struck", pictures)
    with live.training() as process:
        live.wait_for("checkpoint", lambda event: event["step"] >= 8)
        before = live.status()
        victim = next(rank for rank in before["ranks"] if rank["rank"] == 1)
        old = {rank["pid"] for rank in before["ranks"]}
        os.kill(victim["pid"], signal.SIGKILL)
        until(lambda: bool({rank["pid"] for rank in live.status()["ranks"]} - old), "a new generation", 120)
        assert not [pid for pid in old if _alive(pid)], "a process of the old generation met the new one"
        _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    status = live.status()
    assert (status["state"], status["restarts"], status["generation"]) == ("Succeeded", 1, 2)
    assert "SIGKILL" in err
    assert [event["kind"] for event in live.events()].count("resume") == 1
    assert live.weights_digest() == undisturbed.weights_digest()


def test_sigkill_of_the_supervisor_leaves_nothing_and_resume_changes_no_bit(
    undisturbed: Live, pictures: Path, tmp_path: Path
) -> None:
    live = Live(tmp_path, "cut", pictures)
    with live.training() as process:
        live.wait_for("checkpoint", lambda event: event["step"] >= 8)
        supervisor = _supervisor(live)
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: [pid for pid in live.pids() if pid != process.pid] == [], "all processes gone", 10)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "platform resume cut" in err
    assert live.status()["state"] == "Interrupted"
    with live.resuming() as process:
        _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "going on from step-" in err
    assert live.status()["state"] == "Succeeded"
    assert live.weights_digest() == undisturbed.weights_digest()


def test_ctrl_c_checkpoints_exits_130_and_the_printed_command_resumes(
    undisturbed: Live, pictures: Path, tmp_path: Path
) -> None:
    live = Live(tmp_path, "stopped", pictures)
    with live.training() as process:
        live.wait_for("step", lambda event: event["step"] >= 3)
        interrupt(process)
        _, err = process.communicate(timeout=90)
    assert process.returncode == 130
    assert err.rstrip().endswith("platform resume stopped")
    assert "nothing is lost: the checkpoint is of the same step" in err
    assert "Traceback" not in err
    assert gone(live)
    status = live.status()
    assert status["state"] == "Suspended"
    assert status["restarts"] == 0
    with live.resuming() as process:
        _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert live.weights_digest() == undisturbed.weights_digest()


def test_cancel_of_a_run_whose_rank_is_frozen_ends_all_within_30_s_and_keeps_the_checkpoint(
    pictures: Path, tmp_path: Path
) -> None:
    live = Live(tmp_path, "frozen", pictures)
    with live.training("--detach") as process:
        process.communicate(timeout=60)
    live.wait_for("checkpoint", lambda event: event["step"] >= 4)
    victim = next(rank for rank in live.status()["ranks"] if rank["rank"] == 1)
    os.kill(victim["pid"], signal.SIGSTOP)  # the other one waits for it in a collective
    begun = time.monotonic()
    done = platform("cancel", "frozen", home=tmp_path)
    assert time.monotonic() - begun < 30
    assert live.pids() == []
    assert done.returncode == 0, done.stderr
    status = live.status()
    assert status["state"] == "Suspended"
    assert f"the checkpoint of step {status['checkpointStep']} is kept" in done.stderr
    kept = live.folder / "output" / "checkpoints" / f"step-{status['checkpointStep']:08d}"
    assert json.loads((kept / "meta.json").read_text())["sha256"] == sha256_of(kept / "state.pt")


def test_a_disk_that_fills_up_in_mid_checkpoint_loses_only_that_one(
    undisturbed: Live, pictures: Path, tmp_path: Path
) -> None:
    with tiny_disk(tmp_path / "disk", "1g") as disk:
        live = Live(disk.path, "full", pictures)
        inside = Live(disk.inside, "full", pictures)

        def on_it(*words: object) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*disk.prefix, *command(*words)],
                env=environment(live.home),
                capture_output=True,
                text=True,
                check=False,
                timeout=240,
            )

        def fill() -> None:
            """Once there was room enough to begin: a checkpoint of this network takes some 90 MB."""
            told = inside.folder / "output" / "events.jsonl"
            until(lambda: told.is_file() and '"start"' in told.read_text(), "it begins", 120)
            disk.remount("size=150m")

        words = ("--data", pictures, "--name", "full", *(word for pair in SMALL.items() for word in pair))
        with ThreadPoolExecutor() as pool:
            filled = pool.submit(fill)
            done = on_it("train", *words)
            filled.result()
        assert done.returncode == 3, done.stderr
        assert "checkpoint of step 4 could not be written" in done.stderr
        assert "No space left on device" in done.stderr
        whole = [path.name for path in sorted((inside.folder / "output" / "checkpoints").iterdir())]
        assert whole == ["step-00000002"], "nothing of the unfinished one is left"
        listed = on_it("list", "-o", "json")
        assert [run["state"] for run in json.loads(listed.stdout)["runs"]] == ["Failed"]
        disk.remount("size=1g")
        done = on_it("resume", "full")
        assert done.returncode == 0, done.stderr
        assert "going on from step-00000002" in done.stderr
        assert inside.weights_digest() == undisturbed.weights_digest()


def test_two_runs_at_once_do_not_disturb_each_other(undisturbed: Live, pictures: Path, tmp_path: Path) -> None:
    """Case DDP-04, its first half: both meet only their own."""
    one, two = Live(tmp_path, "one", pictures), Live(tmp_path, "two", pictures)
    with one.training() as first, two.training() as second:
        _, first_err = first.communicate(timeout=300)
        _, second_err = second.communicate(timeout=300)
    assert (first.returncode, second.returncode) == (0, 0), first_err + second_err
    assert one.weights_digest() == two.weights_digest() == undisturbed.weights_digest()


def test_cancel_from_another_terminal_and_logs_of_every_rank(pictures: Path, tmp_path: Path) -> None:
    live = Live(tmp_path, "called-off", pictures)
    with live.training("--detach") as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        live.wait_for("step")
        done = platform("cancel", "called-off", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "platform resume called-off" in done.stderr
    assert gone(live)
    assert live.status()["state"] == "Suspended"
    both = platform("logs", "called-off", home=tmp_path).stdout
    only = platform("logs", "called-off", "--rank", 1, home=tmp_path).stdout
    assert "[called-off-master-0.g1] " in both
    assert "worker-0" not in platform("logs", "called-off", "--rank", 0, home=tmp_path).stdout
    assert "master-0" not in only
    listed = platform("list", "-o", "name", home=tmp_path).stdout
    assert listed == "called-off\n"


def test_a_name_that_is_taken_is_refused(undisturbed: Live, pictures: Path) -> None:
    done = platform("train", "--data", pictures, "--name", "calm", home=undisturbed.home)
    assert done.returncode == 2
    assert "calm" in done.stderr
    assert "hint: " in done.stderr


def test_a_checkpoint_of_another_network_is_refused(undisturbed: Live, pictures: Path, tmp_path: Path) -> None:
    live = Live(tmp_path, "mixed", pictures)
    with live.training() as process:
        live.wait_for("checkpoint")
        process.terminate()  # ends in order, as Ctrl-C does
        _, err = process.communicate(timeout=90)
        assert process.returncode == 130, err
    objects = live.folder / "objects.json"
    for file in (objects, live.folder / "job.json", live.folder / "classifier.yaml"):
        file.write_text(file.read_text().replace("resnet18", "resnet34"))
    with live.resuming() as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "resnet18" in err
    assert "resnet34" in err
    assert live.status()["state"] == "Failed"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _supervisor(live: Live) -> int:
    pid: int = json.loads((live.folder / "supervisor.json").read_text())["pid"]
    return pid
