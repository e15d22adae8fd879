"""Which GPUs a pod's containers may use: a node's devices are given out one by one, by CUDA's variable.

It keeps well-behaved programs apart; a program that sets the variable anew sees what it likes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainserve.kube import names, quantity
from trainserve.kube.cluster import Manifest


class Devices:
    """The node's GPUs, as CUDA_VISIBLE_DEVICES calls them. None at all: the variable is left alone."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = list(devices)
        self._held: dict[str, dict[str, list[str]]] = {}  # by pod's uid and container

    def environment(self, pod: Manifest, container: Manifest) -> Mapping[str, str]:
        """The container's devices, the same at each restart; none where it asks for none.

        Where fewer are free than it asks for, which no scheduler brings about, it gets those.
        """
        if not self._devices:
            return {}
        held = self._held.setdefault(pod["metadata"]["uid"], {})
        if container["name"] not in held:
            taken = {device for pods in self._held.values() for devices in pods.values() for device in devices}
            free = [device for device in self._devices if device not in taken]
            held[container["name"]] = free[: _asked(container)]
        return {names.ENV_CUDA_DEVICES: ",".join(held[container["name"]])}

    def release(self, uid: str) -> None:
        """Give back what the pod has."""
        self._held.pop(uid, None)


def visible(count: int, chosen: str | None) -> list[str]:
    """`count` devices: the first of those that the node's own variable `chosen` names, else by number."""
    return [part.strip() for part in chosen.split(",")][:count] if chosen else [str(index) for index in range(count)]


def _asked(container: Manifest) -> int:
    amount = ((container.get("resources") or {}).get("limits") or {}).get(names.RESOURCE_GPU, 0)
    return int(quantity.parse(amount))
