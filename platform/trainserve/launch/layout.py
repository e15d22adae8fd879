"""Where this node stands in its job, from the pod's environment (docs/architecture.md, "A pod")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainserve.errors import UserError
from trainserve.kube import names
from trainserve.machine.ports import LOOPBACK, Reserved


@dataclass(frozen=True)
class Layout:
    """A node's place: `node` counts from 0; every node has `procs` ranks."""

    node: int
    nodes: int
    procs: int
    master_addr: str
    master_port: int
    host_nodes: int = 1  # nodes of the job that share this machine's cores

    @property
    def world_size(self) -> int:
        return self.nodes * self.procs

    def rank(self, local_rank: int) -> int:
        return self.node * self.procs + local_rank

    def threads(self, cores: int) -> int:
        """Threads of one rank so that all ranks of this machine together do not oversubscribe its cores."""
        return max(1, cores // (self.procs * self.host_nodes))


def is_elastic(env: Mapping[str, str]) -> bool:
    """Whether PET_NNODES is a range `min:max`."""
    return ":" in env.get(names.ENV_PET_NNODES, "")


def layout(env: Mapping[str, str], *, cores: int, gpus: Callable[[], int]) -> Layout:
    """The place of this node in a job of fixed size. Raises UserError that names the variable."""
    nodes = number(env, names.ENV_PET_NNODES, 1, at_least=1)
    node = number(env, names.ENV_PET_NODE_RANK, 0, at_least=0)
    if node >= nodes:
        raise UserError(
            f"{names.ENV_PET_NODE_RANK}={node} is not below {names.ENV_PET_NNODES}={nodes}",
            hint="nodes count from 0",
        )
    addr, port = env.get(names.ENV_MASTER_ADDR), env.get(names.ENV_MASTER_PORT)
    if nodes > 1 and not (addr and port):
        missing = names.ENV_MASTER_PORT if addr else names.ENV_MASTER_ADDR
        raise UserError(
            f"{missing} is not set, but {names.ENV_PET_NNODES}={nodes} nodes must meet somewhere",
            hint="the PyTorchJob controller sets it; by hand, give every node the address and port of node 0",
        )
    return Layout(
        node=node,
        nodes=nodes,
        procs=processes(env, cores=cores, gpus=gpus),
        master_addr=addr or LOOPBACK,
        master_port=number(env, names.ENV_MASTER_PORT, 0, at_least=1, at_most=65535) or own_port(),
        host_nodes=number(env, names.ENV_HOST_NODES, 1, at_least=1),
    )


def processes(env: Mapping[str, str], *, cores: int, gpus: Callable[[], int]) -> int:
    """Ranks on this node, from PET_NPROC_PER_NODE: a number, or auto (GPUs, else cores), gpu, cpu. Default 1."""
    text = env.get(names.ENV_PET_NPROC_PER_NODE, "1")
    if text == "cpu":
        return cores
    if text == "auto":
        return gpus() or cores
    if text == "gpu":
        found = gpus()
        if not found:
            raise UserError(
                f"{names.ENV_PET_NPROC_PER_NODE}=gpu, but no GPU is visible here",
                hint="use nprocPerNode: auto, or give the pod a limit nvidia.com/gpu",
            )
        return found
    return number(env, names.ENV_PET_NPROC_PER_NODE, 1, at_least=1)


def number(env: Mapping[str, str], name: str, default: int, *, at_least: int, at_most: int | None = None) -> int:
    """An integer of the environment. Raises UserError with name, value and limits."""
    text = env.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = at_least - 1
    if value < at_least or (at_most is not None and value > at_most):
        allowed = f"from {at_least} to {at_most}" if at_most is not None else f"of at least {at_least}"
        raise UserError(f"{name}={text!r} is not a whole number {allowed}")
    return value


def own_port() -> int:
    """A loopback port for a job of one node, which tells it to nobody: reserved until this process ends."""
    return Reserved().port("rank 0")
