"""The agent of one node in an elastic job (PET_NNODES `min:max`): torch's own agent, with our exit codes and message.

torch's rendezvous decides who takes part and restarts ranks in place (PET_MAX_RESTARTS); what is ours is the end:
torchrun ends with 1 whatever its ranks did.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # re-exported from C++
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from trainserve.errors import EXIT_OK, EXIT_PEER_LOST, EnvironmentProblem, UserError
from trainserve.kube import names
from trainserve.launch import agent, layout, lifeline, termination
from trainserve.machine import cgroup
from trainserve.machine.ports import LOOPBACK, is_loopback

log = logging.getLogger(__name__)

# torch would let ranks meet in the agents' own store, which listens where our rank 0 is to (train/distributed.py).
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
STOP_S = 24 * 3600  # how long torch may wait for ranks after SIGTERM: the kubelet's grace period comes first


def run(program: Sequence[str]) -> int:
    """As `agent.run`, for an elastic job. Raises UserError for a wrong environment."""
    lifeline.watch()
    os.environ.pop(names.ENV_LIFELINE_FD, None)  # torch starts ranks without inherited descriptors
    os.environ[OWN_STORE] = "1"
    cores = cgroup.cores()
    config = launch_config(os.environ, cores=cores)
    share = cores // (config.nproc_per_node * layout.number(os.environ, names.ENV_HOST_NODES, 1, at_least=1))
    os.environ.setdefault(names.ENV_OMP_NUM_THREADS, str(max(1, share)))
    killed_before = cgroup.oom_kills() or 0
    store = on_loopback(config)
    try:
        elastic_launch(config, sys.executable)("-u", *program)
    except SignalException as stopped:
        log.info("stopped by %s", stopped.sigval.name)
        return 128 + int(stopped.sigval)
    except RendezvousError as lost:
        return not_met(lost, config)
    except ChildFailedError as failed:
        first = first_failure(failed)
        oom_kills = max(0, (cgroup.oom_kills() or 0) - killed_before)
        log.error("%s", termination.cause(first, oom_kills))
        termination.write(termination.encode(first, oom_kills))
        return first.code
    finally:
        del store  # the agents have met there until now
    return EXIT_OK


def on_loopback(config: LaunchConfig) -> TCPStore | None:
    """The agents' store, where they meet on this machine only: torch's own would listen on every address of it.

    `config` is changed to meet there. None where they meet elsewhere, or another agent of the job has opened it.
    """
    host, _, text = config.rdzv_endpoint.rpartition(":")
    port = int(text) if text.isdigit() else 0
    if config.rdzv_backend != "c10d" or not is_loopback(host):
        return None
    config.rdzv_configs["is_host"] = "false"
    try:
        listener = socket.create_server((LOOPBACK if host == "localhost" else host, port), backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return None
        raise EnvironmentProblem(
            f"the nodes cannot meet at {config.rdzv_endpoint}: {error.strerror or error}"
        ) from error
    host, port = listener.getsockname()[:2]
    config.rdzv_endpoint = f"{host}:{port}"
    return TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())


def not_met(error: RendezvousError, config: LaunchConfig) -> int:
    """Where the nodes meet cannot be reached, or is there no more: that may pass, so it is told as a lost peer."""
    why = f"{type(error).__name__}: {error.__cause__ or error}".strip()
    message = f"the other nodes are not met at {config.rdzv_endpoint}: {why.splitlines()[0]}"
    log.error("%s", message)
    rank = layout.number(os.environ, names.ENV_PET_NODE_RANK, 0, at_least=0)
    termination.write(termination.encode(termination.Failure(rank, EXIT_PEER_LOST, time.time(), message=message), 0))
    return EXIT_PEER_LOST


def first_failure(failed: ChildFailedError) -> termination.Failure:
    """Whole seconds are what torch reports: among ranks of one second those that lost a peer come last."""
    failures = [
        termination.failure(rank, what.exitcode, what.timestamp, Path(what.error_file))
        for rank, what in failed.failures.items()
    ]
    failures.sort(key=lambda what: (what.time, what.code == EXIT_PEER_LOST, what.signal == "SIGTERM", what.rank))
    first = termination.first(failures)
    assert first is not None, "ChildFailedError has at least one failure"
    return first


def launch_config(env: Mapping[str, str], *, cores: int) -> LaunchConfig:
    """The PET_* variables as torchrun reads them (docs.pytorch.org/docs/stable/elastic/run.html)."""
    low, _, high = env[names.ENV_PET_NNODES].partition(":")
    if not (low.isdigit() and high.isdigit() and 1 <= int(low) <= int(high)):
        raise UserError(
            f"{names.ENV_PET_NNODES}={env[names.ENV_PET_NNODES]!r} is not `min:max` with 1 <= min <= max",
            hint="elasticPolicy.minReplicas and maxReplicas set it",
        )
    standalone = names.ENV_PET_STANDALONE in env
    endpoint = "localhost:0" if standalone else env.get(names.ENV_PET_RDZV_ENDPOINT, "")
    if not endpoint:
        raise UserError(
            f"{names.ENV_PET_RDZV_ENDPOINT} is not set, but an elastic job must meet somewhere",
            hint="the PyTorchJob controller sets it to <host>:<port> of worker 0",
        )
    return LaunchConfig(
        min_nodes=int(low),
        max_nodes=int(high),
        nproc_per_node=layout.processes(env, cores=cores, gpus=agent.visible_gpus),
        run_id=env.get(names.ENV_PET_RDZV_ID) or env.get(names.ENV_JOB_UID) or "none",
        rdzv_endpoint=endpoint,
        rdzv_backend="c10d" if standalone else env.get(names.ENV_PET_RDZV_BACKEND) or "c10d",
        rdzv_configs=rendezvous_options(env.get(names.ENV_PET_RDZV_CONF, "")),
        max_restarts=layout.number(env, names.ENV_PET_MAX_RESTARTS, 0, at_least=0),
        local_addr=LOOPBACK if standalone else None,
        shutdown_timeout=STOP_S,
    )


def rendezvous_options(text: str) -> dict[str, Any]:
    """`k=v,k=v` as a dict. Raises UserError for an entry that is no pair."""
    options: dict[str, Any] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        key, separator, value = entry.partition("=")
        if not separator or not key.strip():
            raise UserError(f"{names.ENV_PET_RDZV_CONF}={text!r}: {entry!r} is not `key=value`")
        options[key.strip()] = value.strip()
    return options
