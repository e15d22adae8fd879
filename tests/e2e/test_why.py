"""Accidents that really happen, and `platform why` of each: the cause, who began it, and one thing to do."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import ranks
from support.accidents import Accident, end_all, shown, why
from support.command import platform
from support.pictures import write_classes
from support.runs import wait_until
from trainserve.kube import names
from trainserve.local import control, start

pytestmark = pytest.mark.slow

# Node 0 listens where the init containers of the others wait for it.
MEET = """\
import socket
if rank == 0:
    server = socket.create_server(("127.0.0.1", int(os.environ["MASTER_PORT"])))
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    end_all()


# What one rank of two does -> the cause, what the sentence has, what the advice has.
CAUSES: dict[str, tuple[str, str, str, str]] = {
    "exception": ("def mine(x):\n    return 1 / x\nmine(0)", "exception", "ZeroDivisionError", "repair the line"),
    "segfault": ("import ctypes\nctypes.string_at(0)", "segfault", "SIGSEGV", "stack"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "killed", "SIGKILL", "dmesg"),
    "bus-error": ("os.kill(os.getpid(), signal.SIGBUS)", "shared-memory", "/dev/shm", "/dev/shm"),
    "memory": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))\nx = bytearray(2**30)",
        "out-of-memory-refused",
        "MemoryError",
        "memory",
    ),
    "disk": ("open('/dev/full', 'w').write('x' * 99999)", "disk-full", "No space left on device", "df -h"),
    "file-size": (
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "with open('out', 'wb') as f:\n    f.write(b'x' * 99)",
        "disk-full",
        "File too large",
        "platform resume",
    ),
    "files": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))\n"
        "kept = [open(os.devnull) for _ in range(50)]",
        "too-many-open-files",
        "too many files open",
        "ulimit -n",
    ),
    "package": ("import no_such_package_here.part", "package-missing", "no_such_package_here", "pip install"),
    "library": (
        "import ctypes\nopen('broken.so', 'w').write('no library')\nimport importlib.util as u\n"
        "u.module_from_spec(u.spec_from_file_location('broken', os.path.abspath('broken.so')))",
        "library-broken",
        "broken.so",
        "reinstall",
    ),
    "import": ("from json import no_such_name", "import-error", "no_such_name", "version"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_what_a_rank_does(name: str) -> None:
    source, cause, sentence, advice = CAUSES[name]
    body = "\n".join("    " + line for line in source.splitlines())
    found = Accident("run", f"if rank == 1:\n{body}\ntime.sleep(60)\n", nodes=1, nproc=2).over()
    assert found["cause"] == cause, shown(found)
    assert found["rank"] == 1
    assert sentence in found["title"]
    assert advice in found["advice"]
    assert found["state"] == "Failed"
    assert [victim["who"] for victim in found["victims"]] == ["rank 0"]
    assert found["exitCode"] not in (0, None)


# What a run of one or two nodes of small scripts meets -> the cause.

PULSE = "from trainserve.launch.pulse import open_pulse\npulse = open_pulse(stall_s=1)\npulse.step(1)\n"


def test_a_rank_that_hangs_in_its_own_code_and_the_other_node_its_victim() -> None:
    source = PULSE + "def stuck():\n    time.sleep(60)\nif rank == 1:\n    stuck()\npulse.waits()\ntime.sleep(60)\n"
    found = Accident("run", MEET + source, nodes=2).over()
    assert (found["cause"], found["rank"], found["pod"]) == ("stalled", 1, "run-worker-0")
    assert "in stuck" in found["title"]
    assert found["exitCode"] == 201
    assert any("in stuck" in frame for frame in found["ownFrames"])
    assert found["victims"] == [] or found["victims"][0]["who"].endswith("(Master 0)")


def test_a_collective_that_never_ends() -> None:
    source = PULSE + "def all_reduce():\n    time.sleep(90)\npulse.waits()\nall_reduce()\n"
    found = Accident("run", source, nproc=2).over(60)
    assert found["cause"] == "stalled-collective"
    assert "in all_reduce" in "\n".join(found["excerpt"])
    assert "platform logs run" in found["advice"]


def test_a_frozen_process() -> None:
    accident = Accident("run", PULSE + "time.sleep(60)\n", nproc=2)
    os.kill(accident.rank_pid(1), signal.SIGSTOP)
    found = accident.over()
    assert found["cause"] in {"frozen", "stalled"}
    assert found["exitCode"] == 201


def test_no_permission() -> None:
    source = "if os.getuid() == 0:\n    os.setuid(65534)\nopen('/etc/hosts', 'a')\n"
    found = Accident("run", source).over()
    assert found["cause"] == "permission-denied"
    assert "'/etc/hosts'" in found["title"]
    assert "ls -ld" in found["advice"]


def test_a_command_that_is_not_there() -> None:
    found = Accident("run", "", command=["no-such-program"]).over()
    assert found["cause"] == "command-not-found"
    assert "no-such-program" in found["title"]
    assert "`command`" in found["advice"]


def test_a_program_that_is_not_named() -> None:
    found = Accident("run", "", command=[sys.executable, "-m", "trainserve.launch"]).over()
    assert (found["cause"], found["exitCode"]) == ("spec-wrong", 2)
    assert "no program to run" in found["title"]


def test_a_port_that_the_user_chose_and_another_program_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = Accident("run", "", nodes=2, env={"MASTER_PORT": str(port)}).over()
    assert found["cause"] == "port-in-use"
    assert str(port) in found["title"]
    assert "MASTER_PORT" in found["advice"]


def test_a_volume_that_a_laptop_does_not_have() -> None:
    def claim(spec: dict[str, Any]) -> None:
        pod = spec["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
        pod["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        pod["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]

    found = Accident("run", "", changes=claim).over()
    assert found["cause"] == "not-supported-here"
    assert "persistentVolumeClaim" in found["title"]


def test_a_deadline() -> None:
    found = Accident("run", "time.sleep(60)", changes=lambda s: s["runPolicy"].update(activeDeadlineSeconds=1)).over()
    assert found["cause"] == "deadline"
    assert "no rank failed" in found["title"]
    assert "activeDeadlineSeconds" in found["advice"]


def test_a_limit_of_restarts_tells_each_of_them() -> None:
    source = "os.kill(os.getpid(), signal.SIGKILL if os.environ['TRAINSERVE_GENERATION'] == '1' else signal.SIGSEGV)"
    found = Accident("run", source, changes=lambda s: s["runPolicy"].update(backoffLimit=1)).over()
    assert found["cause"] == "segfault"
    assert [(entry["generation"], entry["cause"], entry["counted"]) for entry in found["restarts"]] == [
        (1, "killed", True)
    ]
    assert any("backoff limit" in note for note in found["notes"])


def test_a_run_that_succeeds_after_a_restart_tells_why() -> None:
    source = "if os.environ['TRAINSERVE_GENERATION'] == '1':\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    found = Accident("run", source, changes=lambda s: s["runPolicy"].update(backoffLimit=1)).over()
    assert (found["state"], found["cause"]) == ("Succeeded", "none")
    assert [entry["cause"] for entry in found["restarts"]] == ["killed"]


def test_a_run_that_goes_on_is_stopped_and_resumed_and_cut() -> None:
    accident = Accident("run", "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\ntime.sleep(60)\n")
    accident.rank_pid(0)
    wait_until(lambda: accident.run.state() == "Running", "it runs")
    assert why(accident.run)["title"].startswith("nothing is wrong: the run goes on")
    control.request(accident.run, "suspend", reason=names.SUSPEND_BY_USER)
    found = accident.over()
    assert found["cause"] == "suspended"
    assert names.SUSPEND_BY_USER in found["title"]
    assert found["advice"] == "platform resume run"
    start.start(accident.run, resume=True, detach=True)
    accident.rank_pid(0)
    os.kill(accident.run.supervisor()["pid"], signal.SIGKILL)
    found = accident.over()
    assert (found["state"], found["cause"]) == ("Interrupted", "supervisor-killed")
    assert found["advice"] == "platform resume run"


def test_the_table_has_the_cause_first_and_the_advice_last(home: Path) -> None:
    accident = Accident("run", "def mine(x):\n    return 1 / x\nif rank == 1:\n    mine(0)\ntime.sleep(60)\n", nproc=2)
    accident.over()
    done = platform("why", "run", home=home)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "run (Failed): rank 1 raised an error: ZeroDivisionError: division by zero"
    assert "first     rank 1, run-master-0, generation 1" in done.stdout
    assert "in mine: return 1 / x" in done.stdout
    assert lines[-2] == "do:"
    assert platform("why", "run", "-o", "name", home=home).stdout == "exception\n"
    wrong = platform("why", "rum", home=home)
    assert wrong.returncode == 2
    assert "did you mean 'run'?" in wrong.stderr


TORCH: dict[str, tuple[str, str, str]] = {
    "label": (
        "import torch\ntorch.nn.functional.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 5]))",
        "label-out-of-range",
        "5 is not below the number of classes",
    ),
    "worker raises": (
        "raise ValueError('no picture 7')",
        "data-worker-exception",
        "data worker 0 of rank 0 raised ValueError: no picture 7",
    ),
    "worker killed": ("os.kill(os.getpid(), signal.SIGKILL)", "data-worker-killed", "was killed: Killed"),
    "worker bus error": ("os.kill(os.getpid(), signal.SIGBUS)", "shared-memory", "/dev/shm"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH)
def test_what_happens_with_torch(name: str) -> None:
    source, cause, sentence = TORCH[name]
    if name.startswith("worker"):
        source = (
            "from torch.utils.data import DataLoader, Dataset\nclass Mine(Dataset):\n    def __len__(self):\n"
            f"        return 9\n    def __getitem__(self, index):\n        {source}\n"
            "if __name__ == '__main__':\n    for _ in DataLoader(Mine(), num_workers=1):\n        pass\n"
        )
    found = Accident("run", source).over(90)
    assert found["cause"] == cause, shown(found)
    assert sentence in found["title"]


WORK = """\
import json
from trainserve.launch import work
spec = json.loads(os.environ["TRAINSERVE_SPEC"])
if __name__ == "__main__":
"""


@pytest.mark.slow
def test_ranks_that_see_other_classes(tmp_path: Path) -> None:
    one = write_classes(tmp_path / "one", {"cat": 6, "dog": 6})
    other = write_classes(tmp_path / "other", {"cat": 6, "hen": 6})
    source = WORK + f"    if rank == 1:\n        spec['spec']['data']['path'] = {str(other)!r}\n"
    source += "        os.environ['TRAINSERVE_SPEC'] = json.dumps(spec)\n    sys.exit(work.main())\n"
    found = Accident("run", source, nproc=2, env={"TRAINSERVE_SPEC": _spec(one)}).over(90)
    assert found["cause"] == "ranks-differ"
    assert "rank 1" in found["title"]
    assert "without dog; with hen" in found["title"]


@pytest.mark.slow
def test_a_rank_that_never_comes(tmp_path: Path) -> None:
    pictures = write_classes(tmp_path / "pictures", {"cat": 6, "dog": 6})
    source = WORK + "    time.sleep(60) if rank == 1 else sys.exit(work.main())\n"
    env = {"TRAINSERVE_SPEC": _spec(pictures), "TRAINSERVE_PEER_TIMEOUT_S": "2"}
    found = Accident("run", source, nproc=2, env=env).over(90)
    assert found["cause"] == "rendezvous-timeout"
    assert "rank 1 did not come" in found["title"]
    assert "--rank 1" in found["advice"]


def _spec(pictures: Path, **train: object) -> str:
    return ranks.classifier(pictures, train=dict(train)).model_dump_json(by_alias=True)
