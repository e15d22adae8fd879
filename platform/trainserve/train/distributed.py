"""The ranks of a job find each other, agree on their devices, and exchange small facts.

Like torch's env:// initialisation, with three differences: rank 0 binds the store's socket itself, so that nothing
listens beyond loopback on a laptop and a taken port has a clear error; devices are chosen for all ranks together, so
that two never share a GPU (NCCL would hang); one process needs no socket at all.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # re-exported from C++

from trainserve.errors import DataError, EnvironmentProblem, PeerLost, SpecError
from trainserve.kube.names import (
    ENV_GENERATION,
    ENV_MASTER_ADDR,
    ENV_MASTER_PORT,
    ENV_PEER_TIMEOUT,
    ENV_RANK,
    ENV_WORLD_SIZE,
)
from trainserve.machine.ports import is_loopback
from trainserve.observe.heartbeat import PEER_TIMEOUT_S

READ_S = 10.0  # longest that rank 0 waits for the others to have read an exchange, in case it is about to exit


@dataclass
class Group:
    """This process among all processes of the job. Collectives do nothing where there is one process."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    ranks_here: int = 1  # processes of the job on this machine
    notices: list[str] = field(default_factory=list)  # what was decided and should be said once, by rank 0
    store: Store | None = None
    timeout_s: float = PEER_TIMEOUT_S  # longest wait for another rank
    control: Any = None  # gloo process group for small things beside the gradients

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def exchange(self, name: str, value: Any) -> list[Any]:
        """JSON values of all ranks, in their order, on every rank. `name` must be new."""
        if self.store is None:
            return [value]
        self.store.set(f"{name}/{self.rank}", json.dumps(value))
        if not self.is_first:
            values: list[Any] = json.loads(self.store.get(f"{name}/all"))
            self.store.add(f"{name}/read", 1)
            return values
        values = [json.loads(self._of_rank(rank, name)) for rank in range(self.world_size)]
        self.store.set(f"{name}/all", json.dumps(values))
        limit = time.monotonic() + READ_S
        while self.store.add(f"{name}/read", 0) < self.world_size - 1 and time.monotonic() < limit:
            time.sleep(0.01)
        return values

    def _of_rank(self, rank: int, name: str) -> Any:
        """What a rank has written; where it does not come, the others are told which one that is."""
        assert self.store is not None
        try:
            return self.store.get(f"{name}/{rank}")
        except dist.DistStoreError as error:  # the time is over; a store that is gone is another error
            raise PeerLost(
                f"rank {rank} did not come: rank 0 waited {self.timeout_s:.0f} s for its {name}",
                hint="see why it did not start, or is that slow: its log, its pod's state",
            ) from error

    def share(self, name: str, value: Any) -> Any:
        """Rank 0's JSON value, on every rank; what the others pass is not looked at."""
        if self.store is None:
            return value
        if self.is_first:
            self.store.set(name, json.dumps(value))
            return value
        return json.loads(self.store.get(name))

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Rank 0's values into everybody's tensor, in place."""
        if self.world_size > 1:
            values = tensor.detach().contiguous()  # strides may differ between ranks (channels_last)
            dist.broadcast(values, src=0)
            if values.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(values)

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over ranks, on the CPU: a point where all ranks wait for each other."""
        total = tensor.detach().cpu().clone()
        if self.world_size > 1:
            dist.all_reduce(total, group=self.control)
        return total

    def leave(self) -> None:
        """Close the connections; call at a regular end only."""
        if self.world_size > 1:
            dist.destroy_process_group()


def peer_timeout_s(env: Mapping[str, str], stall_s: float | None = None) -> float:
    """The longest wait for a silent peer, in seconds: as the environment says, else 600, or more where a step may take
    longer than that: the agent of a rank that hangs (launch/watchdog.py) is to find it before the others give up.
    """
    given = env.get(ENV_PEER_TIMEOUT)
    return float(given) if given else max(PEER_TIMEOUT_S, 2 * (stall_s or 0.0))


def join(
    device: str,
    env: Mapping[str, str] | None = None,
    *,
    stall_s: float | None = None,
    met: Callable[[Group], object] = lambda _: None,
) -> Group:
    """Meet the other ranks at MASTER_ADDR:MASTER_PORT and choose devices: "auto", "cpu" or "cuda".

    `met` is called once all can exchange facts, before their process group, which connects all to all, is made.
    Raises EnvironmentProblem for a taken port, SpecError for "cuda" without enough GPUs, PeerLost when they do not
    come within `peer_timeout_s`.
    """
    env = os.environ if env is None else env
    rank, world_size = int(env.get(ENV_RANK, "0")), int(env.get(ENV_WORLD_SIZE, "1"))
    group = Group(rank, world_size)
    group.timeout_s = peer_timeout_s(env, stall_s)
    timeout = timedelta(seconds=group.timeout_s)
    if world_size > 1:
        group.store = _store(env, rank, timeout)
    here = {"machine": _machine(), "gpus": _visible_gpus() if device != "cpu" else []}
    places = group.exchange("places", here)
    group.ranks_here = Counter(place["machine"] for place in places)[here["machine"]]
    chosen, notice = choose_gpus(device, [place["gpus"] for place in places])
    group.notices += [notice] if notice else []
    if chosen is not None:
        group.device = torch.device("cuda", chosen[rank])
        torch.cuda.set_device(group.device)
    met(group)
    if group.store is not None:
        backend = "gloo" if chosen is None else "cpu:gloo,cuda:nccl"
        store = PrefixStore("ranks", group.store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
        group.control = dist.new_group(backend="gloo", timeout=timeout)
    return group


def choose_gpus(wanted: str, visible: Sequence[Sequence[str]]) -> tuple[list[int] | None, str | None]:
    """For every rank the index of its GPU among those it sees (None: all on the CPU), and what to say about it.

    `visible` holds each rank's GPU ids. Ranks that see the same GPUs take one each, in order. A GPU never serves two
    ranks: with too few of them "auto" means the CPU for all, and "cuda" is a SpecError.
    """
    if wanted == "cpu" or (wanted == "auto" and not any(visible)):
        return None, None
    taken: set[str] = set()
    chosen: list[int] = []
    for gpus in visible:
        free = next((index for index, gpu in enumerate(gpus) if gpu not in taken), None)
        if free is None:
            break
        taken.add(gpus[free])
        chosen.append(free)
    if len(chosen) == len(visible):
        return chosen, None
    total = len({gpu for gpus in visible for gpu in gpus})
    lack = (
        f"{len(visible)} processes and {total} GPU{'s' * (total != 1)} within their reach; each process needs its own"
    )
    if wanted == "cuda":
        raise SpecError(f"spec.train.device: cuda, but there are {lack}", hint="use fewer processes, or --device cpu")
    return None, f"training on the CPU: {lack}"


def check_same(group: Group, facts: Mapping[str, Any]) -> None:
    """All ranks must have the same facts as rank 0: "code version", "classes", "pictures".

    Raises DataError (EnvironmentProblem for the code) on every rank, naming the ranks that differ, and how.
    """
    reference = group.share("facts", dict(facts))
    differences = group.exchange("differences", [difference(name, reference[name], facts[name]) for name in facts])
    for index, name in enumerate(facts):
        found = [(rank, row[index]) for rank, row in enumerate(differences) if row[index]]
        if not found:
            continue
        ranks = ", ".join(str(rank) for rank, _ in found[:8]) + (", ..." if len(found) > 8 else "")
        plural = len(found) > 1
        message = f"rank{'s' * plural} {ranks} ha{'ve' if plural else 's'} other {name} than rank 0: {found[0][1]}"
        if name.startswith("code"):
            raise EnvironmentProblem(message, hint="all nodes need the same version of trainserve (the same image)")
        raise DataError(message, hint="all nodes need the same pictures: mount the same volume, or copy them again")


def difference(name: str, theirs: Any, ours: Any) -> str:
    """In words, how `ours` differs from rank 0's `theirs`; "" if it does not."""
    if theirs == ours:
        return ""
    if isinstance(theirs, list) and isinstance(ours, list):
        missing, extra = (sorted(set(a) - set(b))[:10] for a, b in ((theirs, ours), (ours, theirs)))
        parts = [
            f"{word} {', '.join(map(str, names))}" for word, names in (("without", missing), ("with", extra)) if names
        ]
        return "; ".join(parts) or "in another order"
    return f"{name} {str(ours)[:40]} instead of {str(theirs)[:40]}"


def is_peer_lost(error: BaseException) -> bool:
    """Whether an error of a collective means that another rank is gone."""
    if isinstance(error, PeerLost | dist.DistBackendError | dist.DistNetworkError | dist.DistStoreError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(mark in text for mark in ("gloo/", "Gloo ", "NCCL", "c10d"))


def _store(env: Mapping[str, str], rank: int, timeout: timedelta) -> Store:
    try:
        host, port = env[ENV_MASTER_ADDR], int(env[ENV_MASTER_PORT])
    except (KeyError, ValueError) as error:
        raise EnvironmentProblem(
            f"rank {rank} does not know its master: {ENV_MASTER_ADDR}={env.get(ENV_MASTER_ADDR)!r}, "
            f"{ENV_MASTER_PORT}={env.get(ENV_MASTER_PORT)!r}",
            hint="start training with `python -m trainserve.launch`, which sets them",
        ) from error
    if is_loopback(host):
        # What gloo and NCCL open between ranks stays on this machine too.
        name = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
    listener = _listen(host, port).detach() if rank == 0 else None
    try:
        store = TCPStore(
            host, port, is_master=rank == 0, timeout=timeout, wait_for_workers=False, master_listen_fd=listener
        )
    except (dist.DistNetworkError, dist.DistStoreError, RuntimeError) as error:
        raise PeerLost(
            f"rank {rank} could not reach rank 0 at {host}:{port} within {timeout.total_seconds():.0f} s"
        ) from error
    return PrefixStore(f"generation-{env.get(ENV_GENERATION, '0')}", store)


def _listen(host: str, port: int) -> socket.socket:
    """The store's socket: on loopback if the master's address is there, else on every address."""
    try:
        if is_loopback(host):
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return socket.create_server(address[:2], family=family, backlog=1024)
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise EnvironmentProblem(
            f"master port {port} ({ENV_MASTER_PORT}) cannot be opened: {error.strerror or error}",
            hint="another program listens there; choose another port" if taken else None,
        ) from error


def _machine() -> str:
    """This machine, or this pod: host name and, where there is one, the kernel's boot id."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{platform.node()} {boot}"


def _visible_gpus() -> list[str]:
    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
