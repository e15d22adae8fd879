"""Between the ranks: can neighbours connect, does an all-reduce give the right sum, and how fast is it?

Bandwidth is nccl-tests' bus bandwidth: bytes / time x 2 (n - 1) / n for an all-reduce over n ranks
(https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md), comparable between sizes of a job.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from trainserve.errors import EnvironmentProblem, PeerLost
from trainserve.machine.usage import MIB
from trainserve.train.distributed import Group, is_peer_lost

REDUCE_S = 45.0  # longest for one all-reduce: with the time to meet, the answer comes in the first minute
CONNECT_S = 10.0
SMALL, LARGE = 1024, 4 * MIB  # bytes: a latency and a bandwidth; DDP's buckets have up to 25 MiB
ROUNDS = 3


@dataclass(frozen=True)
class Speed:
    """Of the all-reduces of a job."""

    small_s: float  # median time of one of SMALL bytes
    bus_bytes_per_s: float  # of one of LARGE bytes


def neighbours(group: Group) -> str | None:
    """Why this rank cannot connect to the next one, in a ring; None where it can, or all are on one machine.

    Only workers' ports that are open show it: gloo and NCCL connect all to all, and a NetworkPolicy that lets the
    master's port through and nothing else would be a hang of minutes. Call before the process group is made.
    """
    if group.ranks_here == group.world_size:
        return None
    with socket.create_server(("", 0), backlog=8) as listener:
        where = [socket.gethostname(), _own_address(), listener.getsockname()[1]]
        places = group.exchange("preflight addresses", where)
        following = (group.rank + 1) % group.world_size
        name, address, port = places[following]
        problem = None
        try:
            socket.create_connection((address, port), timeout=CONNECT_S).close()
        except OSError as error:
            said = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            problem = f"cannot connect to rank {following} ({name}, {address}:{port}): {said}"
        group.exchange("preflight ring", problem)  # nobody closes its listener before all have tried
        return problem


def _own_address() -> str:
    """The address under which this host name is known: in a pod its own."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return socket.gethostname()


def all_reduce(group: Group) -> Speed | None:
    """Sum over all ranks and check it, small and large; None where there is one rank.

    Raises PeerLost when it does not end in `REDUCE_S`, EnvironmentProblem when the sum is wrong.
    """
    if group.world_size == 1:
        return None
    small = sorted(_seconds(group, SMALL) for _ in range(ROUNDS))[ROUNDS // 2]
    large = min(_seconds(group, LARGE) for _ in range(ROUNDS))
    count = group.world_size
    return Speed(small, LARGE / large * 2 * (count - 1) / count)


def _seconds(group: Group, size: int) -> float:
    count = group.world_size
    values = torch.full((size // 4,), float(group.rank + 1), device=group.device)
    began = time.monotonic()
    try:
        dist.all_reduce(values, async_op=True).wait(timedelta(seconds=REDUCE_S))
        total = float(values.min()), float(values.max())  # also waits for the GPU
    except RuntimeError as error:
        if not (is_peer_lost(error) or "timed out" in str(error)):  # gloo's words: "Operation timed out!"
            raise
        raise PeerLost(
            f"rank {group.rank}: an all-reduce of {size:,} bytes over {count} ranks did not end in {REDUCE_S:.0f} s",
            hint="pods of one job must reach each other on every port: see NetworkPolicies, and the interface that "
            "GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME names",
        ) from error
    took = time.monotonic() - began
    wanted = count * (count + 1) / 2
    if total != (wanted, wanted):
        raise EnvironmentProblem(
            f"rank {group.rank}: an all-reduce of {size:,} bytes over {count} ranks gave {total[0]} to {total[1]} "
            f"instead of {wanted}",
            hint="a GPU, its driver or the network damages data; try NCCL_P2P_DISABLE=1, or other nodes",
        )
    return took
