"""The agent, seen from outside: exit codes, signals, the first failing rank, the termination message."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.ranks import free_port
from support.runs import agent, alive, clean_env, wait_until

READY = "open(f'ready-{rank}', 'w').close()\n"
HEAD = "import os, signal, sys, time\nrank = int(os.environ['RANK'])\n"


def message(tmp_path: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((tmp_path / "termination-log").read_text())
    return parsed


def finish(process: subprocess.Popen[str], timeout: float = 20) -> tuple[int, str]:
    output = process.communicate(timeout=timeout)[0]
    return process.returncode, output


def test_all_ranks_end_well(tmp_path: Path) -> None:
    code, output = finish(
        agent(tmp_path, HEAD + "print('world', os.environ['WORLD_SIZE'])", {"PET_NPROC_PER_NODE": "2"})
    )
    assert code == 0
    assert sorted(output.splitlines()) == ["[rank 0] world 2", "[rank 1] world 2"]
    assert not (tmp_path / "termination-log").exists()


def test_exit_code_is_the_first_failing_ranks(tmp_path: Path) -> None:
    source = HEAD + "sys.exit(65) if rank == 1 else time.sleep(60)"
    code, _ = finish(agent(tmp_path, source, {"PET_NPROC_PER_NODE": "3"}))
    assert code == 65
    assert message(tmp_path)["peakMib"] > 1
    assert message(tmp_path) | {"time": 0, "peakMib": 0} == {
        "rank": 1,
        "exitCode": 65,
        "signal": None,
        "time": 0,
        "cause": "rank 1 found the data wrong (exit code 65)",
        "message": "",
        "traceback": "",
        "oomKills": 0,
        "peakMib": 0,
    }


def test_rank_killed_by_a_signal_ends_the_agent_with_128_plus_n(tmp_path: Path) -> None:
    source = HEAD + "os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else time.sleep(60)"
    code, _ = finish(agent(tmp_path, source, {"PET_NPROC_PER_NODE": "2"}))
    assert code == 137
    told = message(tmp_path)
    assert (told["rank"], told["exitCode"], told["signal"]) == (1, 137, "SIGKILL")
    assert told["cause"] == "rank 1 was killed by SIGKILL (exit code 137)"


def test_a_rank_that_lost_its_peer_is_not_the_cause(tmp_path: Path) -> None:
    source = HEAD + "sys.exit(200) if rank == 0 else (time.sleep(0.4), sys.exit(9))"
    code, _ = finish(agent(tmp_path, source, {"PET_NPROC_PER_NODE": "2"}))
    assert code == 9
    assert message(tmp_path)["rank"] == 1


def test_only_victims_here_the_cause_is_on_another_node(tmp_path: Path) -> None:
    code, _ = finish(agent(tmp_path, HEAD + "sys.exit(200)"))
    assert code == 200
    assert message(tmp_path)["cause"] == "rank 0 lost contact with another rank (exit code 200)"


def test_sigterm_goes_to_every_rank_and_is_waited_for(tmp_path: Path) -> None:
    source = HEAD + (
        "def stop(*_):\n"
        "    time.sleep(0.3 * (1 + rank))\n"
        "    open(f'saved-{rank}', 'w').close()\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n" + READY + "time.sleep(60)\n"
    )
    process = agent(tmp_path, source, {"PET_NPROC_PER_NODE": "2"})
    wait_until(lambda: len(list(tmp_path.glob("ready-*"))) == 2, "ranks are ready")
    process.send_signal(signal.SIGTERM)
    code, _ = finish(process)
    assert code == 143
    assert len(list(tmp_path.glob("saved-*"))) == 2


def test_ranks_without_a_handler_end_with_143_on_sigterm(tmp_path: Path) -> None:
    process = agent(tmp_path, HEAD + READY + "time.sleep(60)")
    wait_until((tmp_path / "ready-0").exists, "rank is ready")
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143


def test_traceback_of_the_error_file_is_in_the_message(tmp_path: Path) -> None:
    source = (
        "import json, os, sys\n"
        "error = {'message': {'message': 'ValueError: loss is NaN', 'extraInfo': {'py_callstack': 'T' * 9000 + 'END',"
        " 'timestamp': '1'}}}\n"
        "json.dump(error, open(os.environ['TORCHELASTIC_ERROR_FILE'], 'w'))\n"
        "sys.exit(1)\n"
    )
    assert finish(agent(tmp_path, source))[0] == 1
    told = message(tmp_path)
    assert told["message"] == "ValueError: loss is NaN"
    assert told["traceback"].endswith("END")
    assert (tmp_path / "termination-log").stat().st_size <= 4096


def test_torch_env_of_a_rank_on_the_third_node(tmp_path: Path) -> None:
    source = "import json, os\nprint(json.dumps({k: v for k, v in os.environ.items()}))"
    env = {"PET_NNODES": "4", "PET_NODE_RANK": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "23456", "RANK": "2"}
    _, output = finish(agent(tmp_path, source, {**env, "WORLD_SIZE": "4", "TRAINSERVE_HOST_NODES": "64"}))
    seen = json.loads(output)
    expected = {
        "RANK": "2",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "1",
        "GROUP_RANK": "2",
        "GROUP_WORLD_SIZE": "4",
        "ROLE_RANK": "2",
        "ROLE_WORLD_SIZE": "4",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "23456",
        "OMP_NUM_THREADS": "1",
    }
    assert {name: seen.get(name) for name in expected} == expected


def test_ranks_json_names_every_process(tmp_path: Path) -> None:
    process = agent(
        tmp_path, HEAD + READY + "time.sleep(60)", {"PET_NPROC_PER_NODE": "2", "TRAINSERVE_POD_DIR": str(tmp_path)}
    )
    wait_until((tmp_path / "ranks.json").exists, "ranks.json is written")
    rows = json.loads((tmp_path / "ranks.json").read_text())
    assert [(row["rank"], row["local_rank"], row["node"]) for row in rows] == [(0, 0, 0), (1, 1, 0)]
    assert all(alive(row["pid"]) for row in rows)
    process.terminate()
    finish(process)


@pytest.mark.parametrize(
    ("argv", "env", "said"),
    [
        ([], {}, "no program to run"),
        (["-m"], {}, "no program to run"),
        (["x.py"], {"PET_NPROC_PER_NODE": "0"}, "PET_NPROC_PER_NODE='0' is not a whole number of at least 1"),
        (["x.py"], {"PET_NNODES": "2"}, "MASTER_ADDR is not set"),
        (["x.py"], {"PET_NNODES": "2", "PET_NODE_RANK": "2"}, "PET_NODE_RANK=2 is not below PET_NNODES=2"),
    ],
)
def test_wrong_input_exits_2_and_says_why(tmp_path: Path, argv: list[str], env: dict[str, str], said: str) -> None:
    log = tmp_path / "termination-log"
    done = subprocess.run(
        [sys.executable, "-m", "trainserve.launch", *argv],
        env=clean_env(TRAINSERVE_TERMINATION_LOG=str(log), **env),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert said in json.loads(log.read_text())["message"]


def test_static_jobs_import_no_torch() -> None:
    probe = "import sys, trainserve.launch.agent, trainserve.launch.__main__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_elastic_job_ends_with_its_ranks_code(tmp_path: Path) -> None:
    env = {"PET_NNODES": "1:2", "PET_STANDALONE": "", "PET_NPROC_PER_NODE": "2", "PET_RDZV_CONF": "last_call_timeout=1"}
    code, output = finish(agent(tmp_path, HEAD + "sys.exit(67) if rank == 1 else time.sleep(60)", env), 60)
    assert code == 67, output
    assert (message(tmp_path)["rank"], message(tmp_path)["exitCode"]) == (1, 67)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="what listens is read from Linux' /proc")
def test_agents_of_this_machine_meet_on_loopback_only(tmp_path: Path) -> None:
    port = free_port()
    env = {"PET_NNODES": "1:2", "PET_RDZV_ENDPOINT": f"127.0.0.2:{port}", "PET_NPROC_PER_NODE": "1"}
    program = HEAD + "print(*open('/proc/net/tcp'), *open('/proc/net/tcp6'), sep='', flush=True)"
    code, output = finish(agent(tmp_path, program, {**env, "PET_RDZV_CONF": "last_call_timeout=1"}), 60)
    assert code == 0, output
    listening = [line.split()[1] for line in output.splitlines() if line.strip() and line.split()[3:4] == ["0A"]]
    assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0200007F:{port:04X}"]


@pytest.mark.slow
def test_ranks_of_an_elastic_job_meet(tmp_path: Path) -> None:
    env = {"PET_NNODES": "1:2", "PET_STANDALONE": "", "PET_NPROC_PER_NODE": "2", "PET_RDZV_CONF": "last_call_timeout=1"}
    program = HEAD + "from trainserve.train.distributed import join\nprint('met', join('cpu').world_size, flush=True)"
    code, output = finish(agent(tmp_path, program, env), 120)
    assert code == 0, output
    assert output.count("met 2") == 2
