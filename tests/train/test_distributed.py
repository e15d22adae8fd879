from __future__ import annotations

import socket
import subprocess
import sys
import textwrap

import pytest
import torch.distributed as dist

from support.ranks import free_port
from trainserve.errors import EnvironmentProblem, SpecError
from trainserve.train.distributed import Group, check_same, choose_gpus, difference, is_peer_lost, join


@pytest.mark.parametrize(
    ("wanted", "visible", "chosen"),
    [
        ("auto", [[], []], None),
        ("cpu", [["A"], ["B"]], None),
        ("auto", [["A", "B"], ["A", "B"]], [0, 1]),  # two nodes on one machine, each with local rank 0
        ("cuda", [["A"], ["B"]], [0, 0]),  # pods with a GPU each
        ("auto", [["A"], ["A"]], None),
        ("auto", [["A"], []], None),
    ],
)
def test_a_gpu_serves_one_process(wanted, visible, chosen):
    assert choose_gpus(wanted, visible)[0] == chosen


def test_too_few_gpus_are_said_or_refused():
    _, notice = choose_gpus("auto", [["A"]] * 4)
    assert notice == "training on the CPU: 4 processes and 1 GPU within their reach; each process needs its own"
    with pytest.raises(SpecError, match="4 processes and 1 GPU"):
        choose_gpus("cuda", [["A"]] * 4)
    with pytest.raises(SpecError, match="1 processes and 0 GPUs"):
        choose_gpus("cuda", [[]])


def test_one_process_needs_no_socket():
    group = join("cpu", {})
    assert (group.world_size, group.exchange("x", 1), group.share("y", 2), group.ranks_here) == (1, [1], 2, 1)
    check_same(group, {"classes": ["a"]})


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        (["a", "b"], ["a", "b"], ""),
        (["a", "b"], ["a", "c"], "without b; with c"),
        (["a", "b"], ["b", "a"], "in another order"),
        ("1", "2", "pictures 2 instead of 1"),
    ],
)
def test_differences_are_told_in_words(theirs, ours, words):
    assert difference("pictures", theirs, ours) == words


def test_ddp_04_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=f"master port {port} .MASTER_PORT. cannot be opened"):
            join("cpu", {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})


def test_an_unknown_master_is_said():
    with pytest.raises(EnvironmentProblem, match="MASTER_PORT='x'"):
        join("cpu", {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "x"})


def test_which_errors_mean_a_lost_peer():
    gloo = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"
    assert is_peer_lost(RuntimeError(gloo))
    assert is_peer_lost(dist.DistNetworkError("reset"))
    assert not is_peer_lost(RuntimeError("shape mismatch"))
    assert not is_peer_lost(ValueError(gloo))


def run_ranks(code: str, count: int, **env: str) -> list[subprocess.CompletedProcess[str]]:
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={
                "PATH": "/usr/bin:/bin", "RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "TRAINSERVE_PEER_TIMEOUT_S": "60", **env,
            },
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    done = []
    for process in started:
        out, err = process.communicate(timeout=120)
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return done


@pytest.mark.slow
def test_all_ranks_hear_which_one_has_other_classes():
    code = """
        from trainserve.train.distributed import check_same, join
        group = join("cpu")
        classes = ["cat", "dog"] if group.rank != 1 else ["cat", "fox"]
        try:
            check_same(group, {"code version": "1", "classes": classes})
        except Exception as error:
            print(type(error).__name__, error.message)
    """
    ranks = run_ranks(code, 3)
    wanted = "DataError rank 1 has other classes than rank 0: without dog; with fox\n"
    assert [(rank.stdout, rank.returncode) for rank in ranks] == [(wanted, 0)] * 3


@pytest.mark.slow
def test_nothing_listens_beyond_loopback():
    code = """
        import os
        from pathlib import Path
        from trainserve.train.distributed import join
        group = join("cpu")
        own = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
        listening = [
            line.split()[1].split(":")[0]
            for name in ("tcp", "tcp6")
            for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]
            if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in own
        ]
        group.exchange("done", 1)
        print(sorted(set(listening)))
    """
    ranks = run_ranks(code, 2)
    assert [rank.stdout for rank in ranks] == ["['0100007F']\n"] * 2, ranks


@pytest.mark.slow
def test_a_stop_asked_of_one_rank_reaches_all_at_the_same_step():
    code = """
        import os, signal
        from trainserve.train.agreement import Agreement, StopRequest
        from trainserve.train.distributed import join
        group = join("cpu")
        stop, agreement = StopRequest(), Agreement(group)
        stop.install()
        for step in range(1000):
            if group.rank == 2 and step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            verdict = agreement.result()
            agreement.post(stop.requested, float(group.rank))
            if verdict is not None and verdict.stop:
                break
        agreement.result()
        print(step, verdict.loss)
    """
    ranks = run_ranks(code, 3)
    assert [rank.stdout for rank in ranks] == ["6 1.0\n"] * 3, ranks


def test_alone_the_agreement_is_with_oneself():
    from trainserve.train.agreement import Agreement

    agreement = Agreement(Group())
    assert agreement.result() is None
    agreement.post(True, 0.5)
    verdict = agreement.result()
    assert verdict is not None
    assert (verdict.stop, verdict.loss) == (True, 0.5)
    assert agreement.result() is None
