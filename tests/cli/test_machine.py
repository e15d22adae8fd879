"""What the machine does to a command: files where folders should be, full disks, readers that go, damaged runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.command import command, environment, platform
from trainserve.machine import locks

pytestmark = pytest.mark.slow

DEV_FULL = Path("/dev/full")


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["status", "x"],
        ["train", "--resume", "x"],
        ["train", "--data", "data"],
        ["predict", "x", "data/a/0.png"],
    ],
)
def test_a_file_in_the_place_of_the_home_folder(words: list[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.touch()
    make_pictures(tmp_path / "data")
    done = platform(*words, home=home, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode in {2, 3} or words == ["list"]


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    make_pictures(tmp_path / "data")
    done = platform("train", "--data", "data", home=Path("/proc/nowhere"), cwd=tmp_path)
    assert "error: /proc/nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 3


def test_looking_makes_no_folder(tmp_path: Path) -> None:
    assert platform("list", home=tmp_path / "home").returncode == 0
    assert platform("predict", "x", "y.png", home=tmp_path / "home").returncode == 2
    assert not (tmp_path / "home").exists()


def test_a_current_folder_that_was_removed(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        ["/bin/sh", "-c", f'rmdir "{tmp_path}/gone"; exec "$@"', "sh", *command("train", "--data", "x")],
        cwd=tmp_path / "gone",
        env=environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "error: the current folder was removed\nhint: cd to one that exists\n"
    assert done.returncode == 3


@pytest.mark.skipif(not DEV_FULL.exists(), reason="no /dev/full here")
def test_a_full_disk_under_stdout(tmp_path: Path) -> None:
    with DEV_FULL.open("w") as full:
        done = subprocess.run(
            command("list", "-o", "json"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(tmp_path),
            check=False,
        )
    assert done.stderr == "error: No space left on device\nhint: free some space there\n"
    assert done.returncode == 3


@pytest.mark.skipif(not DEV_FULL.exists(), reason="no /dev/full here")
def test_a_full_disk_under_stderr_changes_no_exit_code(tmp_path: Path) -> None:
    with DEV_FULL.open("w") as full:
        done = subprocess.run(command("status", "x"), stderr=full, env=environment(tmp_path), check=False)
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("latin-1", b"caf\xe9 \\u20ac"), ("utf-8", "caf\u00e9 \u20ac".encode())],
)
def test_letters_that_a_terminal_does_not_have(encoding: str, written: bytes, tmp_path: Path) -> None:
    log = tmp_path / "runs" / "mine" / "pods" / "mine-master-0.g1" / "pytorch.log"
    log.parent.mkdir(parents=True)
    log.write_text("caf\u00e9 \u20ac\n", encoding="utf-8")
    env = {**environment(tmp_path), "PYTHONIOENCODING": encoding}
    done = subprocess.run(command("logs", "mine"), capture_output=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"[mine-master-0.g1] " + written + b"\n"


def test_a_reader_that_has_gone_changes_no_exit_code(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command("list", "-o", "json"),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path) -> None:
    for name in ("broken", "whole"):
        (tmp_path / "runs" / name / "output").mkdir(parents=True)
    objects = tmp_path / "runs" / "broken" / "objects.json"
    objects.write_text('{"objects": [')
    listed = platform("list", "-o", "json", home=tmp_path)
    states = {run["name"]: run["state"] for run in json.loads(listed.stdout)["runs"]}
    assert states == {"broken": "Damaged", "whole": "Interrupted"}
    assert f"broken: {objects} is damaged" in listed.stderr
    for verb in ("status", "resume", "wait", "why"):
        done = platform(verb, "broken", home=tmp_path)
        assert done.stderr.startswith(f"error: {objects} is damaged")
        assert "hint: neither job.json nor classifier.yaml says how to go on" in done.stderr
        assert done.returncode == 3
    cancelled = platform("cancel", "broken", home=tmp_path)
    assert cancelled.returncode == 0  # nothing of it runs, which is what was asked for
    assert cancelled.stderr.startswith(f"no process of broken is left, but it cannot be read: {objects} is damaged")
    assert len(cancelled.stderr.splitlines()) == 1


def make_pictures(folder: Path) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / name / f"{number}.png")


def test_ctrl_c_of_followed_logs_says_that_the_run_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "runs" / "mine" / "pods" / "mine-master-0.g1" / "pytorch.log"
    log.parent.mkdir(parents=True)
    log.write_text("one line\n")
    held = locks.take(tmp_path / "runs" / "mine" / "lock")
    assert held is not None
    try:
        with subprocess.Popen(
            command("logs", "-f", "mine"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(tmp_path),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        ) as following:
            assert following.stdout is not None
            assert following.stdout.readline() == "[mine-master-0.g1] one line\n"
            following.send_signal(signal.SIGINT)
            _, said = following.communicate(timeout=30)
    finally:
        os.close(held)
    assert said == "mine goes on:\n  platform status mine\n  platform cancel mine\n"
    assert following.returncode == 130


def test_a_run_that_was_removed_while_it_was_followed(tmp_path: Path) -> None:
    """CLI-02, a job deleted during follow."""
    run = tmp_path / "runs" / "mine"
    log = run / "pods" / "mine-master-0.g1" / "pytorch.log"
    log.parent.mkdir(parents=True)
    log.write_text("one line\n")
    held = locks.take(run / "lock")
    assert held is not None
    with subprocess.Popen(
        command("logs", "-f", "mine"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    ) as following:
        assert following.stdout is not None
        following.stdout.readline()
        run.rename(tmp_path / "elsewhere")
        _, said = following.communicate(timeout=30)
    os.close(held)
    assert said == f"error: run 'mine' is no longer there: {run} was removed\n"
    assert following.returncode == 3
