"""How much of each resource the nodes have free, and what pods that wait for a place lack of it.

An estimate for people, by the scheduler's rules that matter most: allocatable minus requests of the pods that are
there, on nodes that are ready, not cordoned, tolerated and selected. The scheduler itself has the last word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    wishes = _wishes(specs)
    usable = [node for node in room if any(_takes(node, wish.spec) for wish in wishes)]
    if not usable:
        return "no node takes such pods: none is ready, not cordoned, tolerated and selected by them"
    needed: dict[str, Fraction] = {}
    for wish in wishes:
        for name, amount in wish.each.items():
            needed[name] = needed.get(name, Fraction(0)) + amount * wish.pods
    free = {name: sum((node.free.get(name, Fraction(0)) for node in usable), Fraction(0)) for name in needed}
    short = [
        f"needs {quantity.shown(name, amount)}, {_number(name, free[name])} free"
        for name, amount in sorted(needed.items())
        if amount > free[name]
    ]
    if short:
        return "; ".join(short)
    fitting = _fitting(usable, wishes)
    if fitting == len(specs):
        return None
    largest = max((wish.each for wish in wishes), key=lambda each: sorted(each.items()))
    each = ", ".join(quantity.shown(name, amount) for name, amount in sorted(largest.items()) if name != PODS)
    return f"there is enough in all, but single nodes have room for {fitting} of {len(specs)} pods (each: {each})"


def _number(resource: str, amount: Fraction) -> str:
    """The amount without the name of the resource, which stands before it."""
    return quantity.shown(resource, amount).removesuffix(f" {resource}").removesuffix(" x")


@dataclass
class _Wish:
    """Pods that ask for the same of the same nodes, as those of a gang do: each node is looked at once for all."""

    spec: Manifest  # of one of them
    each: Mapping[str, Fraction]
    pods: int = 0


def _wishes(specs: Sequence[Manifest]) -> list[_Wish]:
    found: dict[str, _Wish] = {}
    for spec in specs:
        each = pod_requests(spec)
        where = [spec.get("nodeSelector") or {}, spec.get("tolerations") or []]
        alike = json.dumps([{name: str(amount) for name, amount in each.items()}, where], sort_keys=True)
        found.setdefault(alike, _Wish(spec, each)).pods += 1
    return list(found.values())


def _fitting(nodes: Sequence[NodeRoom], wishes: Sequence[_Wish]) -> int:
    """Pods that find a place, each on the first node that has it."""
    rooms = [(node, dict(node.free)) for node in nodes]
    found = 0
    for wish in wishes:
        left = wish.pods
        for node, free in rooms:
            if left == 0:
                break
            if not _takes(node, wish.spec):
                continue
            here = min(left, *(int(free.get(name, 0) // amount) for name, amount in wish.each.items() if amount > 0))
            if here > 0:
                free.update({name: free[name] - amount * here for name, amount in wish.each.items() if name in free})
                left -= here
        found += wish.pods - left
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
