"""Before a rank meets the others: is this image the job's version, and does the master answer?"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping

from trainserve import __version__
from trainserve.errors import EnvironmentProblem, PeerLost
from trainserve.kube import versions
from trainserve.kube.names import ENV_MASTER_ADDR, ENV_MASTER_PORT, ENV_RANK, ENV_VERSION
from trainserve.machine.ports import is_loopback

MASTER_S = 45.0  # the init container has seen the port open: what does not answer for so long is gone
CONNECT_S = 5.0
AGAIN_S = 1.0


def image(env: Mapping[str, str], own: str = __version__) -> str | None:
    """What is to be said of this image's version beside the job's; None where both have the same major and minor.

    Raises EnvironmentProblem for another major version, as the operator does (operator/pytorchjob/skew.py).
    """
    asked = env.get(ENV_VERSION)
    theirs, ours = versions.parse(asked), versions.parse(own)
    if asked is None or theirs == ours:
        return None
    message = f"trainserve {versions.told(asked)} made the job, and this image has {own}"
    if theirs is None or ours is None:
        return f"{message}: {ENV_VERSION} is no version"
    if theirs[0] != ours[0]:
        raise EnvironmentProblem(
            f"{message}: another major version",
            hint="train with --image of the command's version, or with the command of the image's version",
        )
    return f"{message}: another minor version"


def master(
    env: Mapping[str, str],
    *,
    limit_s: float = MASTER_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Wait until rank 0's port takes a connection. Raises PeerLost with what was tried last, and how often.

    Not on a laptop, where ranks start at the same moment and an unanswered port only means that rank 0 is importing.
    """
    host, port = env.get(ENV_MASTER_ADDR, ""), env.get(ENV_MASTER_PORT, "")
    if env.get(ENV_RANK, "0") == "0" or not host or not port.isdigit() or is_loopback(host):
        return
    began, tries = clock(), 0
    while True:
        tries += 1
        problem = _connect(host, int(port))
        if problem is None:
            return
        waited = clock() - began
        if waited >= limit_s:
            said, hint = problem
            raise PeerLost(
                f"rank {env.get(ENV_RANK)}: the master {host}:{port} {said} ({tries} tries in {waited:.0f} s)",
                hint=hint,
            )
        sleep(AGAIN_S)


def _connect(host: str, port: int) -> tuple[str, str] | None:
    """What is wrong, and what helps; None where the port takes connections."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return (
            f"has no address: {error.strerror or error}",
            f"the Service {host} must exist and the cluster's DNS answer: kubectl get service,endpointslices; "
            "kubectl -n kube-system get pods -l k8s-app=kube-dns",
        )
    family, kind, protocol, _, address = addresses[0]
    where = address[0]
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.settimeout(CONNECT_S)
            probe.connect(address)
    except TimeoutError:
        return (
            f"({where}) does not answer",
            "a NetworkPolicy or a firewall between the nodes drops it: pods of one job must reach each other on every "
            "port",
        )
    except ConnectionRefusedError:
        return f"({where}) refuses the connection", "rank 0 has ended or not begun: see the Master's log"
    except OSError as error:
        return f"({where}) cannot be reached: {error.strerror or error}", "see the nodes' network"
    return None
