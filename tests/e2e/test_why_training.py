"""What goes wrong in training itself, and `platform why` of it: the same command, real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.accidents import why
from support.live import Live
from support.pictures import write_classes
from trainserve.local.rundir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    home = tmp_path / "home"
    monkeypatch.setenv("TRAINSERVE_HOME", str(home))
    return Live(home, "ill", write_classes(tmp_path / "shapes", {"red": 12, "green": 12}))


def test_a_loss_that_is_no_number(live: Live) -> None:
    wild = ("--nodes", 1, "--lr", 100, "--momentum", 0.99, "--weight-decay", 1, "--schedule", "constant")
    with live.training(*wild, "--epochs", 40) as process:
        _, err = process.communicate(timeout=150)
    assert process.returncode == 1, err
    found = why(RunDir(live.folder))
    assert found["cause"] == "nan-loss"
    assert "the loss became no number" in found["title"]
    assert found["advice"].startswith("platform train -f ")
    assert found["advice"].endswith("--name ill-2 --lr 10")
    assert "Traceback" not in "\n".join(found["excerpt"]), "where our own code says it helps nobody"


def test_a_picture_that_cannot_be_read_in_mid_run(live: Live) -> None:
    for path in sorted((live.data / "red").iterdir()):
        path.write_bytes(path.read_bytes()[:-30])
    with live.training("--check", "none") as process:
        process.communicate(timeout=150)
    found = why(RunDir(live.folder))
    assert found["cause"] == "picture-unreadable"
    assert found["exitCode"] == 65
    assert "red/00" in found["title"]
    assert "--skip-bad" in found["advice"]


def test_a_stopped_run_whose_newest_checkpoint_is_torn_and_then_fits_no_more(live: Live) -> None:
    with live.training("--nodes", 1, "--epochs", 200) as process:
        live.wait_for("checkpoint", lambda event: event["step"] >= 4)
        process.terminate()
        process.communicate(timeout=90)
    run = RunDir(live.folder)
    found = why(run)
    assert found["cause"] == "suspended"
    assert found["advice"] == "platform resume ill"
    newest = sorted((live.folder / "output" / "checkpoints").glob("step-*"))[-1]
    os.truncate(newest / "state.pt", 1000)
    with live.resuming() as process:
        live.wait_for("resume")
        os.kill(int(run.supervisor()["pid"]), signal.SIGKILL)
        process.communicate(timeout=60)
    found = why(run)
    assert found["cause"] == "supervisor-killed"
    assert any(f"checkpoint {newest.name} is torn" in note for note in found["notes"])
    for file in (run.objects_path, run.job_path, run.spec_path):
        file.write_text(file.read_text().replace("resnet18", "resnet34"))
    with live.resuming() as process:
        process.communicate(timeout=120)
    found = why(run)
    assert found["cause"] == "checkpoint-mismatch"
    assert "resnet18" in found["title"]
    assert "resnet34" in found["title"]
