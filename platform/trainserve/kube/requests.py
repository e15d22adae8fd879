"""What a pod asks of a node, as the Kubernetes scheduler counts it."""

from __future__ import annotations

from fractions import Fraction

from trainserve.kube import quantity
from trainserve.kube.cluster import Manifest

PODS = "pods"  # each takes one place of a node's


def pod_requests(spec: Manifest) -> dict[str, Fraction]:
    """Amounts by resource: the containers together, or an init container where that asks for more; with the overhead.

    An amount that cannot be read counts as none: the API server refuses such a pod.
    """
    running = quantity.total(_container(container) for container in spec.get("containers") or [])
    for container in spec.get("initContainers") or []:
        for name, amount in _container(container).items():
            running[name] = max(running.get(name, Fraction(0)), amount)
    return quantity.total([running, _amounts(spec.get("overhead")), {PODS: Fraction(1)}])


def _container(container: Manifest) -> dict[str, Fraction]:
    resources = container.get("resources") or {}
    return {**_amounts(resources.get("limits")), **_amounts(resources.get("requests"))}


def _amounts(amounts: Manifest | None) -> dict[str, Fraction]:
    found = {}
    for name, amount in (amounts or {}).items():
        try:
            found[name] = quantity.parse(amount)
        except ValueError:
            continue
    return found
