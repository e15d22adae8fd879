"""The logs of all nodes in the output: nobody is held up by them, and no stranger writes what he likes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trainserve.kube import names
from trainserve.launch import keptlogs
from trainserve.launch.keptlogs import Files, Receiver, pod_name, send
from trainserve.launch.tee import Lines

HOST = "127.93.8.71"  # an address of its own, since the port is a fixed one


def test_lines_that_do_not_fit_are_counted_and_told():
    lines = Lines(most=20)
    for number in range(6):
        lines.put(0, b"12345678\n" if number < 5 else b"last\n")
    assert lines.take(0) == [(0, b"12345678\n"), (0, b"12345678\n")]
    lines.put(1, b"more\n")
    lines.end()
    assert lines.take(0) == [(None, b"(4 lines were not kept: they came too fast)\n"), (1, b"more\n")]
    for number in range(10):
        lines.put(None, f"{number}\n".encode() * 5)
    lines.end()
    *_, last = lines.take(0) or []
    assert last == (None, b"(8 lines were not kept: they came too fast)\n"), "also where nothing comes after them"
    assert lines.take(0) is None
    assert lines.take(0) is None


def test_a_log_has_a_largest_size_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(keptlogs, "FEWEST", 100)
    monkeypatch.setattr(keptlogs, "LARGEST", 100)
    files = Files(tmp_path / "logs", 1)
    for number in range(50):
        files.write("a-master-0", 0, f"{number:09d}\n".encode())
    files.close()
    kept = (tmp_path / "logs" / "a-master-0-rank0.log").read_text().splitlines()
    assert len(kept) == 10
    assert kept[-1] == "(100 bytes are kept; kubectl logs has the rest)"


def test_a_full_disk_is_told_once_and_no_error(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(keptlogs.log, "warning", lambda text, *of: told.append(text % of))
    (tmp_path / "logs").write_text("a file is where the folder belongs")
    files = Files(tmp_path / "logs", 2)
    for _ in range(3):
        files.write("a-master-0", 0, b"x\n")
    files.close()
    assert len(told) == 1
    assert f"logs cannot be kept in {tmp_path / 'logs'}" in told[0]


class Connected:
    def __init__(self, folder: Path, nodes: int = 4) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.files = Files(folder, nodes)
        self.receiver = Receiver(self.listener, self.files, "uid-1", "2", 2)

    def say(self, hello: object, *lines: bytes) -> None:
        with socket.create_connection(self.address) as connection:
            text = hello if isinstance(hello, bytes) else json.dumps(hello).encode()
            connection.sendall(text + b"\n" + b"".join(lines))

    def close(self) -> None:
        self.receiver.close(5)
        self.files.close()


HELLO = {"uid": "uid-1", "generation": "2", "pod": "a-worker-0"}


def test_lines_of_other_nodes_are_kept_by_rank(tmp_path):
    master = Connected(tmp_path)
    master.say(HELLO, b"1 first\n", b"- of the agent\n", b"1 second\n", b"3 half a line")
    master.close()
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {
        "a-worker-0-rank1.log": "first\nsecond\n",
        "a-worker-0-agent.log": "of the agent\n",
        "a-worker-0-rank3.log": "half a line\n",
    }


@pytest.mark.parametrize(
    "hello",
    [
        b"", b"GET / HTTP/1.1\r", b"[]", b"{}", b"[" * 60_000, {**HELLO, "uid": "another"},
        {**HELLO, "generation": "1"},
        {**HELLO, "pod": "../../etc/passwd"}, {**HELLO, "pod": "a/b"}, {**HELLO, "pod": 7},
    ],
)  # fmt: skip
def test_strangers_write_nothing(tmp_path, hello):
    master = Connected(tmp_path / "logs")
    master.say(hello, b"1 text\n")
    master.close()
    assert list(tmp_path.iterdir()) == []


def test_ranks_that_there_are_not_have_no_files(tmp_path):
    master = Connected(tmp_path, nodes=2)
    master.say(HELLO, b"2 x\n", b"99999999999 x\n", b"1 x\n")
    master.close()
    assert {path.name for path in tmp_path.iterdir()} == {"a-worker-0-rank1.log", "a-worker-0-agent.log"}


def test_lines_are_sent_as_soon_as_the_master_is_there_and_it_is_never_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(keptlogs, "AGAIN_S", 0.05)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    lines, ended = Lines(), threading.Event()
    sender = threading.Thread(target=send, args=(lines, address, HELLO, ended))
    sender.start()
    lines.put(1, b"before anybody listens\n")
    time.sleep(0.15)
    files = Files(tmp_path, 4)
    receiver = Receiver(socket.create_server(address), files, "uid-1", "2", 2)
    lines.put(1, b"after\n")
    lines.end()
    sender.join(5)
    receiver.close(5)
    files.close()
    assert (tmp_path / "a-worker-0-rank1.log").read_text() == "before anybody listens\nafter\n"
    gone = Lines()
    gone.put(1, b"x\n")
    gone.end()
    ended.set()
    begun = time.monotonic()
    send(gone, ("127.0.0.1", 1), HELLO, ended)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"TRAINSERVE_JOB": "ns/a", "PET_NODE_RANK": "0", "PET_NNODES": "3"}, "a-master-0"),
        ({"TRAINSERVE_JOB": "ns/a", "PET_NODE_RANK": "2", "PET_NNODES": "3"}, "a-worker-1"),
        ({"TRAINSERVE_JOB": "ns/a", "PET_NODE_RANK": "2", "PET_NNODES": "1:3"}, "a-worker-2"),
        ({}, socket.gethostname().lower()),
    ],
)
def test_a_pod_is_called_as_the_controller_calls_it(env, name):
    assert pod_name(env) == name


PROGRAM = """\
import os, pathlib, subprocess, sys, time
rank = os.environ["RANK"]
if meet := os.environ.get("TEST_MEET"):  # as ranks of a training do
    pathlib.Path(meet, rank).touch()
    while len(os.listdir(meet)) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.02)
print("line of", rank, flush=True)
subprocess.run(["sh", "-c", "echo child of $RANK >&2"])
if os.environ.get("TEST_STAY"):
    time.sleep(60)
"""


def agent(
    tmp_path: Path, node: int, nodes: int, procs: int, text: str = PROGRAM, **env: str
) -> subprocess.Popen[bytes]:
    program = tmp_path / "program.py"
    program.write_text(text)
    environment = {
        **os.environ,
        names.ENV_JOB: "ns/a",
        names.ENV_JOB_UID: "uid-1",
        names.ENV_GENERATION: "2",
        names.ENV_VERSION: "1.0",
        names.ENV_MASTER_ADDR: HOST,
        names.ENV_MASTER_PORT: "23999",
        names.ENV_PET_NNODES: str(nodes),
        names.ENV_PET_NODE_RANK: str(node),
        names.ENV_RANK: str(node),
        names.ENV_PET_NPROC_PER_NODE: str(procs),
        names.ENV_TERMINATION_LOG: str(tmp_path / f"termination-{node}"),
        **({names.ENV_OUTPUT: str(tmp_path / "output")} if node == 0 else {}),
        **env,
    }
    command = [sys.executable, "-m", "trainserve.launch", str(program)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.0/8 is the machine's own on Linux only")
def test_the_logs_of_all_ranks_of_all_nodes_end_in_the_output_and_in_the_pods_log(tmp_path):
    (tmp_path / "meet").mkdir()
    agents = [agent(tmp_path, node, 2, 2, TEST_MEET=str(tmp_path / "meet")) for node in range(2)]
    said = [each.communicate(timeout=60) for each in agents]
    assert [each.returncode for each in agents] == [0, 0]
    folder = tmp_path / "output" / "logs" / "g2"
    for node, pod in enumerate(("a-master-0", "a-worker-0")):
        for rank in (2 * node, 2 * node + 1):
            kept = (folder / f"{pod}-rank{rank}.log").read_text()
            assert kept == f"line of {rank}\nchild of {rank}\n"
            both = said[node][0] + said[node][1]
            assert f"[rank {rank}] line of {rank}\n".encode() in both


@pytest.mark.slow
def test_a_master_that_takes_no_logs_and_sigterm_change_nothing(tmp_path):
    """The port is nobody's: the node ends with its ranks' code, at once, as it would without."""
    one = agent(tmp_path, 1, 2, 1, TEST_STAY="1")
    assert one.stderr is not None
    assert b"line of 1" in one.stderr.readline()
    one.send_signal(signal.SIGTERM)
    one.communicate(timeout=30)
    assert one.returncode == 143


@pytest.mark.slow
def test_a_log_that_nobody_reads_any_more_holds_up_nobody(tmp_path):
    one = agent(tmp_path, 0, 1, 1, text="for _ in range(20_000): print('x' * 100)")
    assert one.stderr is not None
    assert one.stdout is not None
    one.stderr.close()
    one.stdout.close()
    assert one.wait(60) == 0
