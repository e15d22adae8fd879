"""A job and its pods as the controller sees them when it asks how far they are."""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.machine.ports import LOOPBACK

KEY = ("team", "flowers")


def job(generation: int = 1, state: str = "Running", uid: str = "u1") -> Manifest:
    condition = {"type": state, "status": "True", "reason": "", "message": ""}
    return {
        "metadata": {"namespace": KEY[0], "name": KEY[1], "uid": uid},
        "spec": {},
        "status": {"generation": generation, "conditions": [condition]},
    }


def pod(
    kind: str = "master", index: int = 0, *, generation: int = 1, phase: str = "Running", port: int | None = 9464
) -> Manifest:
    container: Manifest = {"name": names.CONTAINER, "ports": [{"name": names.PORT_NAME, "containerPort": 23456}]}
    if port is not None:
        container["ports"].append({"name": names.PROGRESS_PORT_NAME, "containerPort": port})
    labels = {
        names.LABEL_REPLICA_TYPE: kind,
        names.LABEL_REPLICA_INDEX: str(index),
        names.LABEL_GENERATION: str(generation),
    }
    return {
        "metadata": {"namespace": KEY[0], "name": f"flowers-{kind}-{index}", "labels": labels},
        "spec": {"containers": [container]},
        "status": {"phase": phase, "podIP": LOOPBACK},
    }
