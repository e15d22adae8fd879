"""What a diagnosis is made of: a job's status, its pods' last words, the ends of their logs.

Nothing here knows where that came from: a run folder on a laptop or the API server of a cluster. Pods are raw dicts of
the API (`pod_of`), or, where the object is gone, what the pod left behind (`past_pod`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainserve.kube import moments, names

ON_ITS_WAY = ("ContainerCreating", "PodInitializing")  # a kubelet's words for all that comes before a container
# Warnings of a kubelet, and of who attaches volumes, that a pod's status does not repeat
# (https://pkg.go.dev/k8s.io/kubernetes/pkg/kubelet/events).
TELLING = (
    *("FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox", "FailedCreatePodContainer"),
    *("FailedToRetrieveImagePullSecret", "FailedPrepareDynamicResources", "FailedValidation", "NetworkNotReady"),
)
LOG_BYTES = 64 * 1024  # of the end of a pod's log: a traceback and the stacks of a node's ranks


@dataclass(frozen=True)
class PodEvidence:
    """One pod of one generation, as far as it is known. Times in unix seconds."""

    name: str
    title: str  # "Worker 1", as the controller names it
    generation: int = 0
    node: str = ""  # the machine
    phase: str = ""
    reason: str = ""  # the pod's, else its container's: "OOMKilled", "PortInUse", "ImagePullBackOff"
    message: str = ""  # the pod's own
    exit_code: int | None = None
    finished: float | None = None
    report: Mapping[str, Any] = field(default_factory=dict)  # the agent's termination message
    log: str = ""  # its end
    ranks: tuple[int, ...] = ()
    memory_limit: str = ""  # of the training container, as its template says it: "8Gi"
    disruption: str = ""  # why the cluster took it away: the reason of its condition DisruptionTarget

    @property
    def failed(self) -> bool:
        """Whether it ended, or never started, through an error or because it was taken away."""
        return bool(self.report or self.disruption) or self.phase == "Failed" or self.exit_code not in (None, 0)

    @property
    def time(self) -> float:
        """When it failed; far in the future where nobody wrote that down."""
        at = self.report.get("time")
        if isinstance(at, int | float) and not isinstance(at, bool):
            return float(at)
        return float("inf") if self.finished is None else self.finished


@dataclass(frozen=True)
class Evidence:
    """A run as of now. `state` is the run's, which knows of dead supervisors too (rundir.RunDir.state)."""

    run: str
    state: str
    now: float
    status: Mapping[str, Any] = field(default_factory=dict)  # of the PyTorchJob
    pods: Sequence[PodEvidence] = ()  # of all generations that are known
    spec: Mapping[str, Any] = field(default_factory=dict)  # the Classifier's `spec`; {} of a job without one
    progress: Mapping[str, Any] = field(default_factory=dict)  # observe.summary.Summary
    notices: Sequence[str] = ()  # what rank 0 said once, the newest last
    spec_file: str = ""  # for `platform train -f`
    next_name: str = ""  # a name for a new run like this one
    supervisor_error: str = ""  # why the supervisor ended, where it could say
    supervisor_log: str = ""  # its end
    rebooted: bool = False  # the machine started anew after the run had
    job: Mapping[str, Any] = field(default_factory=dict)  # the PyTorchJob of a cluster
    kubectl: str = ""  # how a command of kubectl about the run begins; "" on a laptop
    notes: Sequence[str] = ()  # what could not be looked at, and why

    @property
    def generation(self) -> int:
        return int(self.status.get("generation") or 0)

    def again(self, flags: str) -> str:
        """The command that trains anew with other settings: a checkpoint is only gone on from with its own."""
        if not self.spec_file:
            return f"set {flags} and train again"
        return f"platform train -f {shlex.quote(self.spec_file)} --name {self.next_name or f'{self.run}-2'} {flags}"

    def condition(self, kind: str) -> Mapping[str, Any]:
        """The condition of this type where it is True, else {}."""
        for condition in self.status.get("conditions") or []:
            if condition["type"] == kind and condition["status"] == "True":
                found: Mapping[str, Any] = condition
                return found
        return {}


def pod_of(
    raw: Mapping[str, Any], log: str = "", ranks: Sequence[int] = (), events: Sequence[Mapping[str, Any]] = ()
) -> PodEvidence:
    """From a pod as an API server has it, the end of its log, and its Events, the oldest first."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    labels = metadata.get("labels") or {}
    container = _container(status)
    state = container.get("state") or {}
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    waiting = state.get("waiting") or {}
    code = ended.get("exitCode")
    text = ended.get("message") or ""
    report = report_of(text)
    if not log and not report:
        log = text  # a kubelet puts the end of the log there where nothing else was left
    unschedulable: Mapping[str, Any] = next(
        (
            condition
            for condition in status.get("conditions") or []
            if condition.get("type") == names.CONDITION_POD_SCHEDULED
            and condition.get("reason") == names.REASON_UNSCHEDULABLE
        ),
        {},
    )
    disrupted = _condition(status, names.DISRUPTION_TARGET)
    event = _news(status, waiting, events)
    return PodEvidence(
        name=metadata["name"],
        title=title_of(metadata["name"], labels),
        generation=_number(labels.get(names.LABEL_GENERATION)),
        node=(raw.get("spec") or {}).get("nodeName") or "",
        phase=status.get("phase") or "Pending",
        reason=status.get("reason")
        or unschedulable.get("reason")
        or event.get("reason")
        or waiting.get("reason")
        or (ended.get("reason") if ended.get("reason") not in {"Error", "Completed"} else "")
        or "",
        message=status.get("message")
        or unschedulable.get("message")
        or event.get("message")
        or waiting.get("message")
        or disrupted.get("message")
        or (text if ended.get("reason") in {"ContainerCannotRun", "StartError"} else ""),
        exit_code=None if code is None else int(code),
        disruption=disrupted.get("reason") or "",
        memory_limit=_memory_limit(raw),
        finished=moments.unix(ended.get("finishedAt")),
        report=report,
        log=log,
        ranks=tuple(ranks),
    )


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of this type where it is True, else {}."""
    conditions = status.get("conditions") or []
    return next((each for each in conditions if each.get("type") == kind and each.get("status") == "True"), {})


def _news(
    status: Mapping[str, Any], waiting: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The newest warning about a pod whose status only says that it is on its way; {} of others.

    A kubelet writes what it cannot mount, or which secret for pulling is missing, nowhere else.
    """
    if status.get("phase", "Pending") != "Pending" or waiting.get("reason") not in (None, *ON_ITS_WAY):
        return {}
    return next((each for each in reversed(events) if each.get("reason") in TELLING), {})


def _memory_limit(raw: Mapping[str, Any]) -> str:
    containers = (raw.get("spec") or {}).get("containers") or []
    main = next(
        (each for each in containers if each.get("name") == names.CONTAINER), containers[0] if containers else {}
    )
    return str(((main.get("resources") or {}).get("limits") or {}).get("memory") or "")


def past_pod(name: str, generation: int, message: str, log: str = "", ranks: Sequence[int] = ()) -> PodEvidence:
    """From what a pod of an earlier generation left: its termination message and its log."""
    report = report_of(message)
    code = report.get("exitCode")
    return PodEvidence(
        name=name,
        title=title_of(name, {}),
        generation=generation,
        phase="Failed" if report else "",
        exit_code=code if isinstance(code, int) else None,
        report=report,
        log=log or ("" if report else message),
        ranks=tuple(ranks),
    )


def report_of(message: str) -> Mapping[str, Any]:
    """The JSON that our agent leaves as termination message; {} of anything else."""
    try:
        document = json.loads(message)
    except ValueError:
        return {}
    return document if isinstance(document, dict) and "exitCode" in document else {}


def title_of(name: str, labels: Mapping[str, str]) -> str:
    """`Worker 1` of the pod `flowers-worker-1`."""
    kind, index = labels.get(names.LABEL_REPLICA_TYPE), labels.get(names.LABEL_REPLICA_INDEX)
    if kind is None or index is None:
        head, _, index = name.rpartition("-")
        kind = head.rpartition("-")[2]
    return f"{kind.capitalize()} {index}"


def _container(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status that says most: an init container that failed, else the `pytorch` container, else the first one."""
    for entry in status.get("initContainerStatuses") or []:
        state = entry.get("state") or {}
        waiting = (state.get("waiting") or {}).get("reason") not in {None, "PodInitializing", "ContainerCreating"}
        if waiting or (state.get("terminated") or {}).get("exitCode"):
            found: Mapping[str, Any] = entry
            return found
    entries = status.get("containerStatuses") or []
    return next((entry for entry in entries if entry.get("name") == names.CONTAINER), entries[0] if entries else {})


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
