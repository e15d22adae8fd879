"""One real node for a control plane of the tests: containerd, runc, a bridge, CoreDNS, kubelet and kube-proxy.

All of it is in namespaces of its own (support/enclosure.py), below `FOLDER`, and in one cgroup.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from support import nodebinaries, nodeconfig
from support.controlplane import ControlPlane, Reached
from support.enclosure import Enclosure, run
from support.guarded import Guarded
from support.kubectl import Kubectl
from support.nodeconfig import CGROUP, INSIDE, NODE, NODE_ADDRESS, OUTSIDE, PODS
from trainserve.errors import EnvironmentProblem
from trainserve.machine import locks

FOLDER = Path("/var/lib/trainserve-test")  # pods of any user reach it, which they do not below /root
CGROUPS = Path("/sys/fs/cgroup")
LINK = "trainserve-test"  # from this machine to the inside
READY_S = 60.0
WEIGHT = 8  # all pods together, beside each other program of this machine: pods' own weights count below it only
STATE_MOUNTS = ("/run", "/var/log", "/var/lib/cni")  # where programs keep what belongs to the one node of a machine


class RealNode:
    """The machine's one. `reached` is for the control plane, which is started after `prepare` and before `start`."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._programs = nodebinaries.programs()
        self._parts: dict[str, Guarded] = {}
        self._inside: Enclosure | None = None
        self._lock: int | None = None
        self.reached = Reached(
            OUTSIDE,
            self._write_certificates,
            {nodeconfig.NODE_USER: "system:nodes", nodeconfig.PROXY_USER: "", nodeconfig.DNS_USER: ""},
        )

    def prepare(self) -> None:
        """Take the machine's only place for a node, and make the way to its pods. Raises EnvironmentProblem."""
        FOLDER.mkdir(exist_ok=True)
        FOLDER.chmod(0o755)
        self._lock = locks.take(FOLDER / "lock")
        if self._lock is None:
            raise EnvironmentProblem("another test run has the node of this machine", hint="wait until it has ended")
        try:
            _remove_leftovers()
            self._inside = Enclosure(self._programs / nodebinaries.PAUSE, self._logs / "enclosure.log")
            _connect(self._inside)
        except BaseException:
            self.stop()
            raise

    def start(self, control_plane: ControlPlane) -> None:
        """Returns when the node is Ready. Raises EnvironmentProblem, with the end of the log of what failed."""
        folder = FOLDER / "node"
        try:
            self._write_configurations(folder, control_plane)
            self._start_containerd(folder)
            kubectl = Kubectl(control_plane.kubeconfig)
            kubectl.apply(*nodeconfig.names_role())
            self.launch("coredns", self._programs / "coredns", "-conf", folder / "Corefile")
            parts = self._programs / nodebinaries.PARTS
            kubelet = [
                *(parts, "kubelet", f"--config={folder}/kubelet.json", f"--root-dir={folder}/kubelet"),
                f"--kubeconfig={control_plane.kubeconfig_of(nodeconfig.NODE_USER)}",
                *(f"--hostname-override={NODE}", f"--node-ip={NODE_ADDRESS}"),
            ]
            self.launch("kubelet", *kubelet)
            proxy = control_plane.kubeconfig_of(nodeconfig.PROXY_USER)
            self.launch("kube-proxy", parts, "kube-proxy", f"--kubeconfig={proxy}", *nodeconfig.proxy())
            self._await("Ready", lambda: _ready(kubectl))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every pod and part; what they wrote goes, but for the logs of the parts."""
        if self._inside is not None:
            self._inside.end()
            self._inside = None
        for part in self._parts.values():
            part.stop()
        self._parts.clear()
        if self._lock is not None:
            _remove_leftovers()
            os.close(self._lock)
            self._lock = None

    def load(self, archive: Path) -> None:
        """Give it an image: a file as `docker save` writes it."""
        self.ctr("images", "import", archive, timeout_s=300)

    def ctr(self, *words: object, timeout_s: float = 60) -> str:
        """containerd's own command, among the node's containers and images."""
        return self.inside("ctr", f"--address={FOLDER}/node/containerd.sock", "-n=k8s.io", *words, timeout_s=timeout_s)

    @property
    def inside(self) -> Enclosure:
        """To run commands on the node."""
        assert self._inside is not None, "the node does not run"
        return self._inside

    def launch(self, part: str, *words: object) -> None:
        """Run a program on the node until it is stopped; its output is `<part>.log`."""
        self._parts[part] = Guarded(self.inside.words(*words), self._logs / f"{part}.log")

    def _write_certificates(self, folder: Path) -> None:
        service = ("kubernetes", "kubernetes.default", f"kubernetes.default.svc.{nodeconfig.DOMAIN}")
        hosts = ",".join((OUTSIDE, nodeconfig.SERVICES_API, "localhost", "kubernetes.default.svc", *service))
        program = self._programs / nodebinaries.PARTS
        run(program, "certificates", folder, hosts, f"{NODE_ADDRESS},{NODE}")

    def _write_configurations(self, folder: Path, control_plane: ControlPlane) -> None:
        for name in ("cni", "registries/_default", "kubelet", "logs", "state", "images"):
            (folder / name).mkdir(parents=True)
        (folder / "containerd.toml").write_text(nodeconfig.containerd(folder))
        (folder / "registries/_default/hosts.toml").write_text(nodeconfig.registries())
        (folder / "cni/pods.conflist").write_text(nodeconfig.network(folder))
        (folder / "Corefile").write_text(nodeconfig.names(control_plane.kubeconfig_of(nodeconfig.DNS_USER)))
        (folder / "resolv.conf").touch()
        (folder / "kubelet.json").write_text(nodeconfig.kubelet(folder, control_plane.folder))
        _make_cgroups()

    def _start_containerd(self, folder: Path) -> None:
        self.launch("containerd", "containerd", "--config", folder / "containerd.toml")
        self._await("containerd", lambda: self._answers("version"))

    def _answers(self, *words: str) -> bool:
        with contextlib.suppress(EnvironmentProblem):
            self.ctr(*words)
            return True
        return False

    def _await(self, what: str, ready: Callable[[], bool]) -> None:
        give_up = time.monotonic() + READY_S
        while not ready():
            dead = [name for name, part in self._parts.items() if not part.alive()]
            if dead or time.monotonic() > give_up:
                shown = [f"--- {name}.log\n{self._parts[name].tail()}" for name in dead or self._parts]
                problem = f"{dead[0]} has ended" if dead else f"{what}: not within {READY_S:.0f} s"
                raise EnvironmentProblem(
                    "\n".join([f"the test node does not start: {problem}", *shown]),
                    hint=f"whole logs are in {self._logs}",
                )
            time.sleep(0.1)


def _connect(inside: Enclosure) -> None:
    """A link between this machine and the inside, and the bridge of the pods; nothing leads further than here."""
    run("ip", "link", "add", LINK, "type", "veth", "peer", "name", "machine", "netns", inside.pid)
    run("ip", "address", "add", f"{OUTSIDE}/30", "dev", LINK)
    run("ip", "link", "set", LINK, "up")
    inside("ip", "link", "set", "lo", "up")
    inside("ip", "address", "add", f"{INSIDE}/30", "dev", "machine")
    inside("ip", "link", "set", "machine", "up")
    inside("ip", "link", "add", nodeconfig.BRIDGE, "type", "bridge")
    inside("ip", "address", "add", f"{NODE_ADDRESS}/24", "dev", nodeconfig.BRIDGE)
    inside("ip", "link", "set", nodeconfig.BRIDGE, "up")
    run("ip", "route", "add", PODS, "via", INSIDE)
    # Through the packet filter also between pods: else a Service's answer comes from an address nobody has asked.
    inside("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")
    inside("mount", "--make-rshared", "/")
    for path in STATE_MOUNTS:
        Path(path).mkdir(parents=True, exist_ok=True)
        inside("mount", "-t", "tmpfs", "node", path)


def _ready(kubectl: Kubectl) -> bool:
    query = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    return kubectl.run("get", "node", NODE, "-o", query).stdout == "True"


def _hierarchies() -> list[Path]:
    """Of cgroups of version 1, or the only one of version 2."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if (path / "cgroup.procs").exists()]


def _make_cgroups() -> None:
    for hierarchy in _hierarchies():
        (hierarchy / CGROUP).mkdir(exist_ok=True)
    cpuset = CGROUPS / "cpuset"
    if (CGROUPS / "cgroup.controllers").exists():
        for path in (CGROUPS, CGROUPS / CGROUP):
            (path / "cgroup.subtree_control").write_text("+cpu +cpuset +memory +pids")
        (CGROUPS / CGROUP / "cpu.weight").write_text(str(100 * WEIGHT))
    elif cpuset.exists():  # a new one is empty, and takes no process
        for name in ("cpuset.cpus", "cpuset.mems"):
            (cpuset / CGROUP / name).write_text((cpuset / name).read_text())
        (CGROUPS / "cpu" / CGROUP / "cpu.shares").write_text(str(1024 * WEIGHT))


def _remove_leftovers() -> None:
    """What a node has left on the machine: its cgroups and its folder, where nothing is mounted any more."""
    for hierarchy in _hierarchies():
        for path in sorted((hierarchy / CGROUP).rglob("*"), reverse=True):
            if path.is_dir():
                _remove_cgroup(path)
        if (hierarchy / CGROUP).exists():
            _remove_cgroup(hierarchy / CGROUP)
    for path in FOLDER.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _remove_cgroup(path: Path) -> None:
    """Its processes have been killed, and may still be ending."""
    give_up = time.monotonic() + 10
    while True:
        try:
            path.rmdir()
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            return
