"""The ranks of one node as processes: their command, their environment, their output."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trainserve.kube.names import (
    ENV_ERROR_FILE,
    ENV_HEARTBEAT,
    ENV_MASTER_ADDR,
    ENV_MASTER_PORT,
    ENV_OMP_NUM_THREADS,
    ENV_POD_DIR,
    ENV_RANK,
    ENV_WORLD_SIZE,
)
from trainserve.launch import lifeline
from trainserve.launch.layout import Layout
from trainserve.machine.files import write_json
from trainserve.observe import heartbeat

JOIN_S = 2.0  # longest wait for the last lines of a rank whose own children still hold its output


@dataclass
class Rank:
    """One running (or ended) rank."""

    rank: int
    local_rank: int
    process: subprocess.Popen[bytes]
    error_file: Path
    pump: threading.Thread | None = None
    heartbeat: Path | None = None


def command(program: Sequence[str]) -> list[str]:
    """The interpreter of this agent with `-m module args...` or `script.py args...`."""
    return [sys.executable, "-u", *program]


def environment(
    place: Layout, local_rank: int, base: Mapping[str, str], *, threads: int, error_file: Path
) -> dict[str, str]:
    """What torch's env:// initialisation reads, as torchrun sets it for one attempt without restarts."""
    rank = str(place.rank(local_rank))
    world = str(place.world_size)
    env = {
        **base,
        ENV_RANK: rank,
        "LOCAL_RANK": str(local_rank),
        ENV_WORLD_SIZE: world,
        "LOCAL_WORLD_SIZE": str(place.procs),
        "GROUP_RANK": str(place.node),
        "GROUP_WORLD_SIZE": str(place.nodes),
        "ROLE_NAME": "default",
        "ROLE_RANK": rank,
        "ROLE_WORLD_SIZE": world,
        ENV_MASTER_ADDR: place.master_addr,
        ENV_MASTER_PORT: str(place.master_port),
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "False",  # rank 0 itself listens on MASTER_PORT
        ENV_ERROR_FILE: str(error_file),
    }
    env.setdefault(ENV_OMP_NUM_THREADS, str(threads))
    env.setdefault("PYTHONFAULTHANDLER", "1")  # a crash in compiled code leaves the stack in the log
    return env


def start(place: Layout, program: Sequence[str], base: Mapping[str, str], *, threads: int, scratch: Path) -> list[Rank]:
    """Start all ranks of this node. With more than one, each line they print begins with `[rank N] `."""
    fd = lifeline.inherited_fd()
    ranks: list[Rank] = []
    for local_rank in range(place.procs):
        rank = place.rank(local_rank)
        error_file = scratch / f"rank-{rank}.error.json"
        beat = scratch / f"rank-{rank}.heartbeat"
        heartbeat.create(beat)
        process = subprocess.Popen(
            command(program),
            env={
                **environment(place, local_rank, base, threads=threads, error_file=error_file),
                ENV_HEARTBEAT: str(beat),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if place.procs > 1 else None,
            stderr=subprocess.STDOUT if place.procs > 1 else None,
            pass_fds=() if fd is None else (fd,),
        )
        ranks.append(Rank(rank, local_rank, process, error_file, _pump(rank, process.stdout), beat))
    record(place, ranks)
    return ranks


def record(place: Layout, ranks: Sequence[Rank]) -> None:
    """Write ranks.json into the pod's folder, where there is one, so that `status` can name each process."""
    folder = os.environ.get(ENV_POD_DIR)
    if not folder:
        return
    rows = [
        {"rank": rank.rank, "local_rank": rank.local_rank, "node": place.node, "pid": rank.process.pid}
        for rank in ranks
    ]
    write_json(Path(folder, "ranks.json"), rows)


def drain(ranks: Sequence[Rank]) -> None:
    """Wait until the last lines of ended ranks are printed."""
    for rank in ranks:
        if rank.pump is not None:
            rank.pump.join(JOIN_S)


def _pump(rank: int, stream: IO[bytes] | None) -> threading.Thread | None:
    if stream is None:
        return None
    thread = threading.Thread(target=_copy_lines, args=(rank, stream), name=f"rank-{rank}-output", daemon=True)
    thread.start()
    return thread


def _copy_lines(rank: int, stream: IO[bytes]) -> None:
    prefix = f"[rank {rank}] ".encode()
    with stream:
        for line in stream:
            whole = prefix + line if line.endswith(b"\n") else prefix + line + b"\n"
            # One write a line, so that lines of two ranks do not mix.
            os.write(1, whole)
