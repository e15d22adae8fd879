"""A Kubernetes control plane of the tests' own: etcd, API server, controller manager and scheduler on loopback.

`tests/cluster/by_hand.py` starts one with simulated nodes, until Ctrl-C.
"""

from __future__ import annotations

import base64
import json
import secrets
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import clusterbinaries
from support.guarded import Guarded
from trainserve.errors import EnvironmentProblem
from trainserve.machine.ports import LOOPBACK, Reserved

READY_S = 120.0
ADMIN = "admin"
KWOK = "kwok"
_USERS = {
    ADMIN: "system:masters",
    KWOK: "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}
# What the parts of the cluster ask for is not what tests count.
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "None", "users": ["system:apiserver", *(user for user in _USERS if user != ADMIN)]},
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system", "system:nodes"]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True)
class Reached:
    """What a real node's pods and kubelet need: an address of this machine that they reach, certificates, tokens.

    `write_certificates(folder)` leaves ca.crt there, and .crt and .key of `tls` and of `kubelet-client`. `users` are
    those of the node, with their group.
    """

    address: str
    write_certificates: Callable[[Path], None]
    users: Mapping[str, str]


class ControlPlane:
    """Everything of it lies in `folder`. `gang`: with Kubernetes' own gang scheduling (the kind PodGroup).

    Without `reached` its API server is on loopback only, where simulated nodes suffice.

    `audit_log` has one JSON object a line for each request that was answered (audit.k8s.io/v1 Event, level Metadata).
    """

    def __init__(self, folder: Path, *, gang: bool = True, reached: Reached | None = None) -> None:
        self.folder = folder
        self.kubeconfig = folder / "admin.kubeconfig"
        self.audit_log = folder / "audit.log"
        self._gang = gang
        self._reached = reached
        self._address = reached.address if reached else LOOPBACK
        self._users = {**_USERS, **(reached.users if reached else {})}
        self._ports = Reserved()
        self._parts: dict[str, Guarded] = {}

    def start(self) -> None:
        """Returns when pods can be made. Raises EnvironmentProblem, with the end of the logs, where it cannot start."""
        program = clusterbinaries.binaries(clusterbinaries.CONTROL_PLANE) / clusterbinaries.CONTROL_PLANE
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # tokens and keys
        self._program = program
        if self._reached:
            self._reached.write_certificates(self.folder)
        else:
            subprocess.run([program, "certificate", self._file("tls.crt"), self._file("tls.key")], check=True)
        self._write_access()
        try:
            self._launch("etcd", self._etcd())
            self.start_api_server()
            self._launch("kube-controller-manager", self._controller_manager())
            self._launch("kube-scheduler", self._scheduler())
            # Pods can be made once the controller manager has made the account that they run under.
            self._await("the default service account", lambda: bool(self.get(_DEFAULT_ACCOUNT)))
            self._await("the scheduler", lambda: _ok(f"https://{LOOPBACK}:{self._port('kube-scheduler')}/readyz"))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill all parts; their logs stay in `folder`."""
        for part in reversed(self._parts.values()):
            part.stop()
        self._parts.clear()
        self._ports.release_all()

    def start_api_server(self) -> None:
        """Start it, also after `stop_api_server`: at the same address, with the same objects."""
        self._launch("kube-apiserver", self._api_server())
        self._await("the API server", lambda: self.get("/readyz") == "ok")

    def stop_api_server(self) -> None:
        """Kill it: connections break, and new ones are refused."""
        self._parts.pop("kube-apiserver").stop()

    def restart_controllers(self) -> None:
        """Kill and start controller manager and scheduler: after an outage theirs are the longest pauses of all."""
        for part, flags in (
            ("kube-controller-manager", self._controller_manager()),
            ("kube-scheduler", self._scheduler()),
        ):
            self._parts.pop(part).stop()
            self._launch(part, flags)
        self._await("the scheduler", lambda: _ok(f"https://{LOOPBACK}:{self._port('kube-scheduler')}/readyz"))

    def pause_api_server(self) -> None:
        """SIGSTOP: it accepts connections and answers nothing."""
        self._parts["kube-apiserver"].send(signal.SIGSTOP)

    def continue_api_server(self) -> None:
        self._parts["kube-apiserver"].send(signal.SIGCONT)

    def pid(self, part: str) -> int:
        """The process of a part, such as "kube-apiserver": whoever measures asks /proc about it."""
        return self._parts[part].pid

    def get(self, path: str) -> str:
        """What the API server answers the administrator; "" where it refuses or does not answer."""
        context = ssl.create_default_context(cafile=str(self._authority()))
        request = urllib.request.Request(
            f"{self._url()}{path}", headers={"Authorization": f"Bearer {self._tokens[ADMIN]}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=2, context=context) as answer:
                body: bytes = answer.read()
        except OSError:
            return ""
        return body.decode()

    def write_kubeconfig(self, path: Path, user: str, token: str) -> None:
        """A kubeconfig that reaches this API server with a token."""
        write_kubeconfig(path, self._url(), self._authority().read_bytes(), user, token)

    def _write_access(self) -> None:
        self._tokens = {user: secrets.token_hex(16) for user in self._users}
        lines = [f'{self._tokens[user]},{user},{user},"{group}"' for user, group in self._users.items()]
        self._file("tokens.csv").write_text("\n".join(lines) + "\n")
        self._file("audit-policy.json").write_text(json.dumps(_AUDIT_POLICY))
        for user, token in self._tokens.items():
            self.write_kubeconfig(self.kubeconfig_of(user), user, token)

    def kubeconfig_of(self, user: str) -> Path:
        """`ADMIN` or `KWOK`, or a part of the control plane."""
        return self._file(f"{user.removeprefix('system:')}.kubeconfig")

    def _launch(self, part: str, flags: list[str]) -> None:
        self._parts[part] = Guarded([self._program, part, *flags], self._file(f"{part}.log"))

    def _await(self, what: str, ready: Callable[[], bool]) -> None:
        give_up = time.monotonic() + READY_S
        while not ready():
            dead = [name for name, part in self._parts.items() if not part.alive()]
            if dead or time.monotonic() > give_up:
                shown = [f"--- {name}.log\n{self._parts[name].tail()}" for name in dead or self._parts]
                problem = f"{dead[0]} has ended" if dead else f"{what} is not ready after {READY_S:.0f} s"
                raise EnvironmentProblem(
                    "\n".join([f"the test cluster does not start: {problem}", *shown]),
                    hint=f"whole logs are in {self.folder}",
                )
            time.sleep(0.05)

    def _file(self, name: str) -> Path:
        return self.folder / name

    def _port(self, owner: str) -> int:
        return self._ports.port(owner)

    def _url(self) -> str:
        return f"https://{self._address}:{self._port('kube-apiserver')}"

    def _authority(self) -> Path:
        return self._file("ca.crt" if self._reached else "tls.crt")

    def _gates(self) -> list[str]:
        return ["--feature-gates=GenericWorkload=true"] if self._gang else []

    def _etcd(self) -> list[str]:
        client, peer = (f"http://{LOOPBACK}:{self._port(owner)}" for owner in ("etcd", "etcd-peer"))
        return [
            f"--data-dir={self._file('etcd')}",
            "--unsafe-no-fsync",  # nothing here outlives a test run
            "--log-level=warn",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]

    def _api_server(self) -> list[str]:
        return [
            f"--etcd-servers=http://{LOOPBACK}:{self._port('etcd')}",
            f"--bind-address={self._address}",
            f"--secure-port={self._port('kube-apiserver')}",
            f"--advertise-address={self._address}",
            *self._to_nodes(),
            f"--tls-cert-file={self._file('tls.crt')}",
            f"--tls-private-key-file={self._file('tls.key')}",
            f"--token-auth-file={self._file('tokens.csv')}",
            "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._file('tls.key')}",
            f"--service-account-signing-key-file={self._file('tls.key')}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--allow-privileged=true",
            "--profiling=false",
            f"--audit-policy-file={self._file('audit-policy.json')}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-format=json",
            *self._gates(),
            *(["--runtime-config=scheduling.k8s.io/v1beta1=true"] if self._gang else []),
        ]

    def _to_nodes(self) -> list[str]:
        if self._reached is None:
            return ["--endpoint-reconciler-type=none"]  # an endpoint may not be a loopback address
        return [
            "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={self._file('kubelet-client.crt')}",
            f"--kubelet-client-key={self._file('kubelet-client.key')}",
            f"--kubelet-certificate-authority={self._file('ca.crt')}",
            "--kubelet-preferred-address-types=InternalIP",
        ]

    def _controller_manager(self) -> list[str]:
        kubeconfig = self.kubeconfig_of("system:kube-controller-manager")
        return [
            *self._client("kube-controller-manager", kubeconfig),
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self._file('tls.key')}",
            f"--root-ca-file={self._authority()}",
            *self._gates(),
        ]

    def _scheduler(self) -> list[str]:
        return [*self._client("kube-scheduler", self.kubeconfig_of("system:kube-scheduler")), *self._gates()]

    def _client(self, part: str, kubeconfig: Path) -> list[str]:
        return [
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self._port(part)}",
            "--leader-elect=false",
            "--profiling=false",
            "--kube-api-qps=500",  # 20 without it: the test would measure that
            "--kube-api-burst=1000",
        ]


_DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


def write_kubeconfig(path: Path, server: str, authority: bytes, user: str, token: str) -> None:
    """`authority`: PEM certificates that the server's is checked against."""
    data = base64.b64encode(authority).decode()
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": data}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        "current-context": "test",
    }
    path.write_text(json.dumps(content, indent=1))
    path.chmod(0o600)


def _ok(url: str) -> bool:
    """Whether a part of the control plane, whose certificate nobody has signed, says that it is ready."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=2, context=context) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
