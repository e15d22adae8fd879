"""How much of each resource the nodes have free, and what pods that wait for a place lack of it.

An estimate for people, by the scheduler's rules that matter most: allocatable minus requests of the pods that are
there, on nodes that are ready, not cordoned, tolerated and selected. The scheduler itself has the last word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from trainserve.kube import quantity
from trainserve.kube.cluster import Manifest
from trainserve.kube.requests import PODS, pod_requests

_HARD = ("NoSchedule", "NoExecute")  # effects of taints that keep a pod away


@dataclass(frozen=True)
class NodeRoom:
    """One node that takes pods: what is free on it."""

    labels: Mapping[str, str]
    taints: tuple[Manifest, ...]
    free: Mapping[str, Fraction]


Room = tuple[NodeRoom, ...]


def node_room(node: Manifest, used: Mapping[str, Fraction]) -> NodeRoom | None:
    """Of one node, of which `used` is taken; None: it takes no pods."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    ready = any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in status.get("conditions") or []
    )
    if spec.get("unschedulable") or not ready:
        return None
    allocatable = {name: quantity.parse(amount) for name, amount in (status.get("allocatable") or {}).items()}
    free = {name: max(Fraction(0), amount - used.get(name, Fraction(0))) for name, amount in allocatable.items()}
    taints = tuple(taint for taint in spec.get("taints") or [] if taint.get("effect") in _HARD)
    return NodeRoom(node["metadata"].get("labels") or {}, taints, free)


def lacking(room: Room, specs: Sequence[Manifest]) -> str | None:
    """What pods with these specs lack, such as "needs 4 x nvidia.com/gpu, 3 free"; None: nothing that is seen here."""
    usable = [node for node in room if any(_takes(node, spec) for spec in specs)]
    if not usable:
        return "no node takes such pods: none is ready, not cordoned, tolerated and selected by them"
    needed = quantity.total(pod_requests(spec) for spec in specs)
    free = quantity.total(node.free for node in usable)
    short = [
        f"needs {quantity.shown(name, amount)}, {_number(name, free.get(name, Fraction(0)))} free"
        for name, amount in sorted(needed.items())
        if amount > free.get(name, Fraction(0))
    ]
    if short:
        return "; ".join(short)
    fitting = _fitting(usable, specs)
    if fitting == len(specs):
        return None
    largest = max((pod_requests(spec) for spec in specs), key=lambda each: sorted(each.items()))
    each = ", ".join(quantity.shown(name, amount) for name, amount in sorted(largest.items()) if name != PODS)
    return f"there is enough in all, but single nodes have room for {fitting} of {len(specs)} pods (each: {each})"


def _number(resource: str, amount: Fraction) -> str:
    """The amount without the name of the resource, which stands before it."""
    return quantity.shown(resource, amount).removesuffix(f" {resource}").removesuffix(" x")


def _fitting(nodes: Iterable[NodeRoom], specs: Sequence[Manifest]) -> int:
    """Pods that find a place, each on the first node that has it."""
    left = [(node, dict(node.free)) for node in nodes]
    found = 0
    for spec in specs:
        asked = pod_requests(spec)
        for node, free in left:
            if _takes(node, spec) and all(free.get(name, Fraction(0)) >= amount for name, amount in asked.items()):
                free.update({name: free[name] - amount for name, amount in asked.items() if name in free})
                found += 1
                break
    return found


def _takes(node: NodeRoom, spec: Manifest) -> bool:
    selected = all(node.labels.get(key) == value for key, value in (spec.get("nodeSelector") or {}).items())
    return selected and all(
        any(_tolerates(toleration, taint) for toleration in spec.get("tolerations") or []) for taint in node.taints
    )


def _tolerates(toleration: Manifest, taint: Manifest) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("operator") == "Exists":
        return not toleration.get("key") or toleration["key"] == taint.get("key")
    return bool(
        toleration.get("key") == taint.get("key") and (toleration.get("value") or "") == (taint.get("value") or "")
    )
