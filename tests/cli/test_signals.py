"""Ctrl-C at any moment, and a terminal that is closed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import command, environment
from support.runs import wait_until
from support.tiny import OBEDIENT, tiny_run
from trainserve import Client
from trainserve.errors import EXIT_HANGUP
from trainserve.kube import names

# Ctrl-C while a module is imported, where it would be a traceback, or lost in what an import swallows.
CTRL_C_AT = """\
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000): pass
sys.meta_path.insert(0, Finder())
from trainserve.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["trainserve.cli.main", "trainserve.cli.list_runs", "trainserve.serve.servers"])
def test_ctrl_c_while_modules_are_imported(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C_AT.format(module=module), "list"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(tmp_path),
    )
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "")
    assert "Traceback" not in done.stderr


def in_a_terminal(words: list[str], home: Path, stderr: Path) -> tuple[int, int]:
    """(process id, our end) of a terminal that runs `words`, with stderr in a file."""
    pid, ours = pty.fork()
    if pid == 0:
        with stderr.open("w") as file:
            os.dup2(file.fileno(), 2)
        os.execve(words[0], words, environment(home))
    return pid, ours


def closed(pid: int, ours: int) -> int:
    """Close the terminal; returns the exit code."""
    os.close(ours)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def test_a_closed_terminal_stops_a_run_that_belongs_to_it_and_everybody_is_told(home: Path, tmp_path: Path) -> None:
    run = tiny_run("mine", OBEDIENT)
    said = tmp_path / "said"
    pid, ours = in_a_terminal(command("resume", "mine"), home, said)
    wait_until(lambda: bool(run.log_files()), "the run begins")
    assert closed(pid, ours) == EXIT_HANGUP
    wait_until(lambda: not run.alive(), "the run stops")
    assert said.read_text() == (
        "stopping after a checkpoint (the terminal was closed)\n"
        "mine goes on stopping in the background; then:\n  platform resume mine\n"
    )
    status = Client().status("mine")
    assert status["state"] == "Suspended"
    assert names.SUSPEND_BY_HANGUP in status["message"]


def test_a_closed_terminal_is_nothing_to_a_detached_run(home: Path, tmp_path: Path) -> None:
    run = tiny_run("mine", OBEDIENT)
    shell = ["/bin/sh", "-c", '"$@"; read line', "sh", *command("resume", "mine", "--detach")]
    pid, ours = in_a_terminal(shell, home, tmp_path / "said")
    wait_until(lambda: bool(run.log_files()), "the run begins")
    closed(pid, ours)
    assert run.alive()
    assert Client().status("mine")["state"] in ("Pending", "Created", "Running")


def test_nohup_is_obeyed(home: Path) -> None:
    run = tiny_run("mine", OBEDIENT)
    words = ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command("resume", "mine")]
    with subprocess.Popen(words, env=environment(home), stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: bool(run.log_files()), "the run begins")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)  # the one that counts
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "(Ctrl-C again" in err
