"""The cases of area f that a laptop has: what scripts and people meet at the command line."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.command import command, environment, platform
from support.here import Here
from support.runs import wait_until
from support.tiny import OBEDIENT, STUBBORN, tiny_run
from trainserve import Client
from trainserve.errors import EXIT_TIMEOUT

NUMBERED = """\
import sys, time
for number in range(20):
    print(number, time.time(), flush=True)
    time.sleep(0.25)
"""
LATE_S = 2.0


@contextmanager
def process(*words: object, home: Path, ready: str = "") -> Iterator[subprocess.Popen[str]]:
    """`platform WORDS` as a terminal starts it, once its output has begun with `ready`."""
    with subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(home)
    ) as started:
        try:
            if ready:
                assert started.stdout is not None
                assert ready in started.stdout.readline()
            yield started
        finally:
            if started.poll() is None:
                started.kill()


@pytest.mark.slow
def test_cli_01_a_failure_is_an_exit_code_that_scripts_can_tell_apart(home: Path, here: Here) -> None:
    for name in ("bad", "worse"):
        tiny_run(name, "import sys; print('oh'); sys.exit(1)")
    submitted = here("resume", "bad", "-o", "name")
    assert (submitted.code, submitted.out) == (1, "bad\n")
    assert here("resume", "worse", "--detach").code == 0
    waited = here("wait", "worse")
    assert waited.code == 1
    assert "error: worse is Failed, not Succeeded" in waited.err
    followed = here("logs", "-f", "worse")
    assert (followed.code, followed.out) == (1, "[worse-master-0.g1] oh\n")
    assert here("logs", "worse").code == 0
    assert here("status", "worse").code == 0
    assert here("wait", "worse", "--for", "failed").code == 0
    assert here("status", "absent").code == 2
    (home / "runs" / "bad" / "objects.json").write_text("{")
    assert here("status", "bad").code == 3  # what should tell the state does not answer
    tiny_run("slow", OBEDIENT)
    assert here("resume", "slow", "--detach").code == 0
    assert here("wait", "slow", "--timeout", "0.1s").code == EXIT_TIMEOUT


@pytest.mark.parametrize("verb", ["status", "logs", "wait", "cancel", "resume", "why", "package", "serve"])
def test_cli_02_a_run_that_is_not_there(verb: str, home: Path, here: Here) -> None:
    """Deleted during follow: tests/cli/test_machine.py."""
    tiny_run("flowers", "")
    for word, guess in (("flowrs", ", did you mean 'flowers'?"), ("local://flowrs", "'flowers'"), ("xyz", "")):
        said = here(verb, word)
        assert said.code == 2
        assert said.err.startswith(f"error: no such run {word.removeprefix('local://')!r}")
        assert guess in said.err.splitlines()[0]
        assert said.err.splitlines()[1:] == ["hint: platform list shows all runs"]
        assert said.out == ""
    assert "no Kubernetes cluster is known here" in here(verb, "k8s://default/flowers").err
    assert here(verb, "../flowers").code == 2


MISSPELT = {
    "train: {num_nodes: 4}": ("spec.train.num_nodes", "spec.train.nodes"),
    "train: {num_workers: 4}": ("spec.train.num_workers", "spec.train.workers"),
    "model: {epochs: 4}": ("spec.model.epochs", "spec.train.epochs"),
    "train: {batch-size: 4}": ("spec.train.batch-size", "spec.train.batchSize"),
    "train: {batch_size: 4}": ("spec.train.batch_size", "spec.train.batchSize"),
    "train: {Epochs: 4}": ("spec.train.Epochs", "spec.train.epochs"),
    "Train: {epochs: 4}": ("spec.Train", "spec.train"),
    "train: {epochs: four}": ("spec.train.epochs", "an integer"),
    "train: {epochs: '4'}": ("spec.train.epochs", "an integer"),
}


@pytest.mark.parametrize("text", MISSPELT)
def test_cli_03_an_unknown_or_wrong_setting(text: str, home: Path, here: Here, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"spec:\n  data: {{path: flowers}}\n  {text}\n")
    said = here("train", "-f", file)
    field, meant = MISSPELT[text]
    assert said.code == 2
    assert said.err.startswith(f"error: {file}:3: {field}: ")
    assert meant in said.err
    assert not home.exists()


@pytest.mark.parametrize("word", ["--num-nodes", "--batch_size", "--Epochs"])
def test_cli_03_an_unknown_flag(word: str, here: Here) -> None:
    meant = {"--num-nodes": "--nodes", "--batch_size": "--batch-size", "--Epochs": "--epochs"}[word]
    said = here("train", "--data", "x", word, "4")
    assert said.code == 2
    assert said.err == (
        f"error: platform train: no such option {word}, did you mean {meant}?\nhint: platform train --help\n"
    )


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        (b"spec:\n\tdata: {path: x}\n", "2:1", "tab"),
        (b"spec:\n  data\n  train: {epochs: 3}\n", "3:8", "colon"),
        (b"spec:\n  data: {path: a}\n  data: {path: b}\n", "3:3", "stands twice"),
        (b"- spec\n- data\n", "1:1", "a list"),
        (b"", "1:1", "empty"),
        ("spec: {data: {path: caf\u00e9}}".encode("latin-1"), "1:24", "UTF-8"),
    ],
)
def test_cli_04_a_broken_file(text: bytes, place: str, says: str, home: Path, here: Here, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(text)
    said = here("train", "-f", file)
    first = said.err.splitlines()[0]
    assert said.code == 2
    assert first.startswith(f"error: {file}:{place}: ")
    assert says in first
    assert not home.exists()


def test_cli_05_impossible_values_are_all_listed(home: Path, here: Here, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "spec:\n  data: {path: ''}\n  train:\n    nodes: 0\n    epochs: -1\n    batchSize: 0\n    lr: fast\n"
        "    nprocPerNode: 0\n  serve: {batchSize: -4}\n"
    )
    said = here("train", "-f", file, "--workers", "-2")
    assert said.code == 2
    for place, field, value in (
        (f"{file}:2", "data.path", '""'),
        (f"{file}:4", "train.nodes", "0"),
        (f"{file}:5", "train.epochs", "-1"),
        (f"{file}:6", "train.batchSize", "0"),
        (f"{file}:7", "train.lr", '"fast"'),
        (f"{file}:8", "train.nprocPerNode", "0"),
        (f"{file}:9", "serve.batchSize", "-4"),
        ("--workers", "train.workers", "-2"),
    ):
        assert f"{place}: spec.{field}: {value} is not allowed; allowed: " in said.err, said.err
    assert not home.exists()


@pytest.mark.parametrize("flag", ["--port", "--grpc-port", "--management-port"])
@pytest.mark.parametrize("value", ["0", "-1", "70000", "http"])
def test_cli_05_impossible_ports(flag: str, value: str, home: Path, here: Here) -> None:
    said = here("serve", "x.mar", flag, value)
    assert said.code == 2
    assert f": {flag}: " in said.err
    assert value in said.err
    assert "is not a whole number from 1 to 65535" in said.err
    assert "starting" not in said.err


@pytest.mark.parametrize("engine", ["torchserve", "native"])
def test_nothing_is_said_to_start_that_is_refused(engine: str, home: Path, here: Here, tmp_path: Path) -> None:
    (tmp_path / "broken.mar").write_bytes(b"no zip")
    said = here("serve", tmp_path / "broken.mar", "--engine", engine)
    assert said.code == 2
    assert said.err.startswith(f"error: {tmp_path}/broken.mar: ")


@pytest.mark.slow
def test_cli_07_followed_lines_come_once_in_order_and_soon(home: Path) -> None:
    """By the Client, by the command, and by the command into a pipe; each ends by itself with the run."""
    tiny_run("counting", NUMBERED)
    client = Client()
    client.resume("counting", detach=True)
    wait_until(lambda: any(client.status("counting")["pods"]), "a pod")
    found: dict[str, list[tuple[float, str]]] = {"client": [], "command": [], "pipe": []}

    def read(name: str, stream: Iterator[str]) -> None:
        found[name] += [(time.time(), line.strip()) for line in stream]

    words = command("logs", "-f", "counting")
    env = environment(home)
    piped = ["/bin/sh", "-c", f"{shlex.join(words)} | cat"]
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env) as direct,
        subprocess.Popen(piped, stdout=subprocess.PIPE, text=True, env=env) as through,
    ):
        assert direct.stdout is not None
        assert through.stdout is not None
        readers = [
            threading.Thread(target=read, args=(name, stream))
            for name, stream in (
                ("command", direct.stdout),
                ("pipe", through.stdout),
                ("client", map(str, client.logs("counting", follow=True))),
            )
        ]
        began = time.time()
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout=60)
    assert direct.returncode == through.returncode == 0
    assert client.status("counting")["state"] == "Succeeded"
    for name, lines in found.items():
        match = [re.fullmatch(r"\[counting-master-0\.g1\] (\d+) ([\d.]+)", line) for _, line in lines]
        assert [int(each[1]) for each in match if each] == list(range(20)), name
        late = [
            at - float(each[2])
            for (at, _), each in zip(lines, match, strict=True)
            if each and float(each[2]) > began + 1
        ]
        assert len(late) > 5
        assert max(late) <= LATE_S, f"{name}: {max(late)} s late"


def commands_in(text: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("  platform ")]


def test_cli_08_ctrl_c_while_following_ends_nothing_and_every_printed_command_works(home: Path) -> None:
    run = tiny_run("mine", OBEDIENT)
    Client().resume("mine", detach=True)
    with process("logs", "-f", "mine", home=home, ready="here") as following:
        following.send_signal(signal.SIGINT)
        out, err = following.communicate(timeout=30)
    assert (following.returncode, out) == (130, "")
    assert run.alive()
    printed = commands_in(err)
    assert printed == [["status", "mine"], ["cancel", "mine"]]
    for words in printed:
        done = platform(*words, home=home)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert commands_in(done.stderr) == [["resume", "mine"]]
    assert not run.alive()


@pytest.mark.slow
def test_cli_08_ctrl_c_twice_stops_in_the_background(home: Path) -> None:
    run = tiny_run("mine", STUBBORN)
    with process("resume", "mine", home=home) as following:
        wait_until(lambda: bool(run.log_files()), "the run begins", 60)
        following.send_signal(signal.SIGINT)
        assert following.stderr is not None
        assert following.stderr.readline() == "stopping after a checkpoint (Ctrl-C again: do not wait)\n"
        following.send_signal(signal.SIGINT)  # it may come before the first has reached the supervisor
        _, err = following.communicate(timeout=60)
    assert following.returncode == 130
    assert "Traceback" not in err
    assert "mine goes on stopping in the background" in err
    assert ["status", "mine"] in commands_in(err)
    wait_until(lambda: bool((run.job() or {})["spec"]["runPolicy"].get("suspend")), "the supervisor was reached")
    killed = platform("cancel", "mine", "--now", home=home)
    assert killed.returncode == 0, killed.stderr
    assert not run.alive()


def test_ctrl_c_of_a_wait_and_of_a_cancel_goes_on_with_the_run(home: Path) -> None:
    run = tiny_run("mine", OBEDIENT)
    Client().resume("mine", detach=True)
    with process("wait", "mine", home=home) as waiting:
        wait_until(lambda: b"wait" in Path(f"/proc/{waiting.pid}/cmdline").read_bytes(), "wait runs")
        time.sleep(0.5)
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=30)
    assert waiting.returncode in (130, -signal.SIGINT)  # the latter while it still imports
    assert "Traceback" not in err
    assert run.alive()
