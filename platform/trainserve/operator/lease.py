"""What an operator makes of the Lease that says which one works: pure, on the object as it was read.

The rules are those of client-go's leader election
(https://pkg.go.dev/k8s.io/client-go/tools/leaderelection): nobody compares clocks with others. A candidate counts, by
its own clock, how long the lease has stayed as it is; a leader counts from before it sent its last renewal. So the
leader has stopped when a candidate may take over, by `duration_s` minus `renew_deadline_s`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from trainserve.errors import UserError
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.moments import rfc3339_micro

Step: TypeAlias = Literal["create", "renew", "take", "wait"]

MOST_S = 2**31 - 1  # of a Lease's leaseDurationSeconds
RELEASED_S = 1  # leaseDurationSeconds of a lease that nobody holds; 0 is not allowed


@dataclass(frozen=True)
class Timing:
    """In seconds: others take over after `duration_s` without a renewal, the leader stops working after
    `renew_deadline_s` without one, and everybody tries every `retry_s`. Raises UserError where these do not fit.
    """

    duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.duration_s > self.renew_deadline_s > self.retry_s > 0:
            raise UserError(
                f"--leader-elect-lease-duration ({self.duration_s:g} s) must be longer than "
                f"--leader-elect-renew-deadline ({self.renew_deadline_s:g} s), and that longer than "
                f"--leader-elect-retry-period ({self.retry_s:g} s)",
                hint="Kubernetes' own controllers use 15s, 10s and 2s",
            )
        if not 1 <= self.duration_s <= MOST_S or self.duration_s != int(self.duration_s):
            raise UserError(
                f"--leader-elect-lease-duration is {self.duration_s:g} s: the API takes whole seconds, 1 to {MOST_S}",
                hint="15s is what Kubernetes' own controllers use",
            )


def next_step(lease: Manifest | None, identity: str, unchanged_s: float) -> Step:
    """What `identity` does about the lease, which it has seen unchanged for `unchanged_s` seconds."""
    if lease is None:
        return "create"
    spec = lease.get("spec") or {}
    holder = spec.get("holderIdentity") or ""
    if holder == identity:
        return "renew"
    if not holder or unchanged_s >= spec.get("leaseDurationSeconds", 0):
        return "take"
    return "wait"


def left_s(lease: Manifest, unchanged_s: float) -> float:
    """Seconds until another may take a lease that stays as it is."""
    return float((lease.get("spec") or {}).get("leaseDurationSeconds", 0)) - unchanged_s


def new(name: str, namespace: str, identity: str, timing: Timing, now: float) -> Manifest:
    """The lease where there is none; `now` in unix seconds."""
    spec = {"leaseTransitions": 0, "acquireTime": rfc3339_micro(now), **_renewal(identity, timing, now)}
    return {
        "apiVersion": names.LEASE.api_version,
        "kind": names.LEASE.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {names.LABEL_PART_OF: names.PART_OF}},
        "spec": spec,
    }


def renewed(lease: Manifest, identity: str, timing: Timing, now: float) -> Manifest:
    """A merge patch with which the holder says that it is there."""
    return _patch(lease, _renewal(identity, timing, now))


def taken(lease: Manifest, identity: str, timing: Timing, now: float) -> Manifest:
    """A merge patch with which another holder begins."""
    transitions = int((lease.get("spec") or {}).get("leaseTransitions") or 0) + 1
    spec = {"leaseTransitions": transitions, "acquireTime": rfc3339_micro(now), **_renewal(identity, timing, now)}
    return _patch(lease, spec)


def released(lease: Manifest, now: float) -> Manifest:
    """A merge patch after which anybody may begin at once."""
    return _patch(lease, {"holderIdentity": "", "leaseDurationSeconds": RELEASED_S, "renewTime": rfc3339_micro(now)})


def _renewal(identity: str, timing: Timing, now: float) -> Manifest:
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": int(timing.duration_s),
        "renewTime": rfc3339_micro(now),
    }


def _patch(lease: Manifest, spec: Manifest) -> Manifest:
    """On the version that was read: whoever was quicker wins."""
    metadata = lease["metadata"]
    return {"metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}, "spec": spec}
