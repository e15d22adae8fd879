"""`platform node run` as a process: one a name and folder, ended by signals in order.

The first SIGTERM or SIGINT stops the pods within their grace period, tells the cluster and ends with 0; a second one
ends at once with 1. However the process dies, no process of its pods outlives it.
"""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import logging
import os
import platform
import re
import signal
import sys
from pathlib import Path

from trainserve import __version__
from trainserve.errors import EXIT_OK, EXIT_RUN_FAILED, EnvironmentProblem, UserError
from trainserve.kube import names, quantity
from trainserve.local import nodedevices
from trainserve.local.node import Node, NodeSettings
from trainserve.local.nodeobject import Machine, NodeShape
from trainserve.machine import locks
from trainserve.machine.home import home
from trainserve.machine.processes import boot_id

log = logging.getLogger(__name__)


def default_name() -> str:
    """This machine's name, as a node may be called."""
    return re.sub(r"[^-a-z0-9.]+", "-", platform.node().lower()).strip("-.") or "laptop"


def default_root(name: str) -> Path:
    return home() / "nodes" / name


def run(
    node: NodeShape,
    *,
    kubeconfig: str | None,
    context: str | None,
    root: Path,
    namespaces: tuple[str, ...],
    allow_root: bool,
    stop_grace_s: float,
) -> int:
    """Be a node until a signal; returns the exit code. Raises UserError and EnvironmentProblem where that cannot be."""
    if os.geteuid() == 0 and not allow_root:
        raise UserError(
            "pods would run as root on this machine, without any isolation",
            hint="run it as a user of its own, or say --allow-root",
        )
    folder = hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:32]
    machine = Machine(sys.platform, platform.machine(), boot_id(), platform.release(), _system(), __version__, folder)
    count = int(quantity.parse(node.resources.get(names.RESOURCE_GPU, 0)))
    gpus = nodedevices.visible(count, os.environ.get(names.ENV_CUDA_DEVICES))
    settings = NodeSettings(node, machine, root.absolute(), tuple(gpus), namespaces, stop_grace_s)
    try:
        settings.pods.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = locks.take(settings.root / "lock")
    except OSError as error:
        raise EnvironmentProblem(f"--root: {error.filename}: {error.strerror}", hint="choose another --root") from error
    if lock is None:
        raise UserError(
            f"a node runs in {settings.root} already", hint="give this one another --name, or another --root"
        )
    whose = f"namespaces {', '.join(namespaces)}" if namespaces else "ALL namespaces"
    log.warning(
        "whoever may create pods in %s of this cluster can run any command as %s on this machine",
        whose,
        _user(),
    )
    # Pods inherit this environment, and are not to act as the node, or as its user, without meaning to.
    inherited = os.environ.pop(names.ENV_KUBECONFIG, None)
    try:
        return asyncio.run(_run(settings, kubeconfig or inherited, context))
    finally:
        os.close(lock)


def _user() -> str:
    """Whom pods run as; a container may run as a number that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.geteuid()}"


def _system() -> str:
    """What the system calls itself."""
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return platform.platform()


async def _run(settings: NodeSettings, kubeconfig: str | None, context: str | None) -> int:
    from trainserve.kube.client import connect

    read_end, write_end = os.pipe()  # the write end is in no other process: it closes when this one dies
    try:
        async with connect(kubeconfig, context) as cluster:
            node = Node(cluster, settings, lifeline=read_end, registered=cluster.tell_outages)
            _stop_at_signals(node)
            await node.run()
    finally:
        os.close(write_end)
        os.close(read_end)
    log.info("node %s: stopped; kubectl delete node %s takes it out of the cluster", *[settings.shape.name] * 2)
    return EXIT_OK


def _stop_at_signals(node: Node) -> None:
    loop = asyncio.get_running_loop()
    seen: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if seen:
            log.warning("%s again: ending at once", number.name)
            os._exit(EXIT_RUN_FAILED)  # the lifeline ends every process of a pod
        seen.append(number)
        node.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
