"""What there is of a job, for the policies to look at. `reading.py` makes it of raw objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.podgroup import Gang
from trainserve.kube.room import Room


@dataclass(frozen=True)
class Ended:
    """A container's end, as the kubelet tells it. Times in unix seconds."""

    exit_code: int | None
    reason: str = ""
    message: str = ""
    finished_at: float | None = None

    def report(self) -> Mapping[str, Any]:
        """The JSON that our node agent leaves as termination message (docs/architecture.md); {} from anyone else."""
        try:
            document = json.loads(self.message)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


@dataclass(frozen=True)
class Pod:
    """One pod of the job. `started_at` and `deletion_asked_at` in unix seconds."""

    name: str
    uid: str
    replica_type: str
    index: int
    generation: int
    phase: str
    raw: Manifest = field(repr=False, compare=False)
    reason: str = ""
    message: str = ""
    disruption: str = ""  # why Kubernetes takes the pod away: the message of its condition DisruptionTarget
    started_at: float | None = None
    deletion_asked_at: float | None = None
    restart_count: int = 0
    main_end: Ended | None = None  # of the container `pytorch`
    last_end: Ended | None = None  # of the container `pytorch` before its newest start in place
    init_end: Ended | None = None  # of the first init container that failed
    restarting: bool = False  # in place: ended with an error, and its kubelet will start it again

    @property
    def deleting(self) -> bool:
        return self.deletion_asked_at is not None

    @property
    def ended(self) -> bool:
        """No process of it is left, and none will be started."""
        return self.phase in {"Succeeded", "Failed"}

    @property
    def placed(self) -> bool:
        """It has a node, or had one."""
        return self.ended or bool((self.raw.get("spec") or {}).get("nodeName"))

    @property
    def adopted(self) -> bool:
        """Kubeflow's operator made it, before this controller took its job over."""
        return names.LABEL_GENERATION not in (self.raw["metadata"].get("labels") or {})

    @property
    def title(self) -> str:
        return f"{self.replica_type} {self.index}"


@dataclass(frozen=True)
class Service:
    name: str
    uid: str
    deleting: bool


@dataclass(frozen=True)
class PodGroup:
    name: str
    uid: str
    generation: int
    deleting: bool
    raw: Manifest = field(repr=False, compare=False)


@dataclass(frozen=True)
class Autoscaler:
    name: str
    uid: str
    deleting: bool
    raw: Manifest = field(repr=False, compare=False)


@dataclass(frozen=True)
class Facilities:
    """What the cluster around a job can do for it.

    gang          the scheduler that places gangs; `no_gang` says why it is none where another was asked for
    autoscaling   whether HorizontalPodAutoscalers are served
    room          what the nodes have free; None: not known, or not looked for
    """

    gang: Gang = "none"
    no_gang: str = ""
    autoscaling: bool = False
    room: Room | None = None


@dataclass(frozen=True)
class Observed:
    """The children that belong to one job by ownerReference, the newest progress of its training, and the cluster."""

    pods: tuple[Pod, ...] = ()
    services: tuple[Service, ...] = ()
    progress: Manifest | None = None
    pod_groups: tuple[PodGroup, ...] = ()
    autoscalers: tuple[Autoscaler, ...] = ()
    facilities: Facilities = Facilities()

    def of_generation(self, generation: int) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.pods if pod.generation == generation)

    def not_of_generation(self, generation: int) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.pods if pod.generation != generation)
