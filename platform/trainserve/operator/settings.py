"""How one operator process is set up; `platform operator run` fills it in from flags and environment."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from trainserve.errors import UserError
from trainserve.machine.ports import LOOPBACK
from trainserve.operator.lease import Timing

ProgressBy: TypeAlias = Literal["pod-ip", "proxy", "none"]
GangSetting: TypeAlias = Literal["auto", "kubernetes", "volcano", "scheduler-plugins", "none"]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # DNS-1123, what a namespace is called by
_HOST = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Address:
    """Where to listen. Port 0: a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address | None:
    """`HOST:PORT`, `[IPV6]:PORT`; "0" is None: nowhere. Raises UserError."""
    if text == "0":
        return None
    host, _, port = text.rpartition(":")
    bare = _ipv6(host) if host.startswith("[") else host if _HOST.fullmatch(host) else None
    if bare is None or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise UserError(
            f"--metrics-address {text!r}: expected HOST:PORT or [IPV6]:PORT, with a port from 0 to 65535",
            hint="127.0.0.1:8080 is reached from this machine only, 0.0.0.0:8080 from everywhere, 0 turns it off",
        )
    return Address(bare, int(port))


def _ipv6(host: str) -> str | None:
    """Without its brackets; None where that is none."""
    bare = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.IPv6Address(bare)
    except ValueError:
        return None
    return bare if host == f"[{bare}]" else None


METRICS_ADDRESS = str(Address(LOOPBACK, 8080))


@dataclass(frozen=True)
class Settings:
    """What the process is told.

    `kubeconfig` and `context` are None where nobody gave them: then $KUBECONFIG, the pod's own account and
    ~/.kube/config are looked at, in this order. An empty `namespaces` means all. `workers` jobs are worked on at the
    same time, and each job is looked at again every `resync_s` seconds. `lease` is None where no other operator is to
    be reckoned with; `lease_namespace` None means the pod's own, or else the first of `namespaces`, or "default".
    `metrics` None: nothing is served. `progress`: whether running pods are asked for it at their address, through the
    API server, or not at all. `gang` is the scheduler that places gangs; auto is Kubernetes' own where it is served.
    """

    kubeconfig: str | None = None
    context: str | None = None
    namespaces: tuple[str, ...] = ()
    workers: int = 8
    resync_s: float = 600.0
    lease: Timing | None = field(default_factory=Timing)
    lease_namespace: str | None = None
    metrics: Address | None = None
    progress: ProgressBy = "pod-ip"
    gang: GangSetting = "auto"


def parse_namespaces(given: tuple[str, ...], flag: str) -> tuple[str, ...]:
    """Names, in one word with commas or in several; each once. Raises UserError for what cannot be a namespace."""
    found = tuple(dict.fromkeys(name.strip() for word in given for name in word.split(",")))
    for name in found:
        if not name:  # nothing given would mean all namespaces
            raise UserError(
                f"{flag} {','.join(given)!r}: a name is empty; is a variable of the shell not set?",
                hint=f"leave {flag} out to take the default",
            )
        if not _LABEL.fullmatch(name):
            raise UserError(
                f"{flag} {name!r}: a namespace's name has lower-case letters, digits and inner dashes, at most 63",
                hint="kubectl get namespaces lists them",
            )
    return found
