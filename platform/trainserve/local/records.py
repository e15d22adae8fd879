"""The JSON files of a run's folder: read as what was written there, or told as damaged with what helps.

Disks tear files and hands change them, so nothing that is read here is trusted: what has another shape than its
readers rely on is damaged, or, where it only adds to what is known otherwise, left out.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainserve.errors import EnvironmentProblem, SpecError
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.machine import locks
from trainserve.machine.files import remove_folder

OBJECTS = "objects.json"
JOB = "job.json"
SPEC = "classifier.yaml"
LOCK = "lock"
DAMAGED = ".damaged"  # ends the name of what was set aside

# What a value must be where it is there at all: a type, the fields of a mapping, or a list of such; a field whose name
# ends in ! must be there.
Shape = type | tuple[type, ...] | Mapping[str, "Shape"] | list["Shape"]
NUMBER = (int, float)
_METADATA: Shape = {"name!": str, "labels": {}, "annotations": {}, "creationTimestamp": str}
_REPLICA: Shape = {"replicas": int, "template": {"spec": {}}}
_CONDITION: Shape = {"type!": str, "status!": str, "message": str, "lastTransitionTime": str, "lastUpdateTime": str}
_JOB: Shape = {
    "metadata!": _METADATA,
    "spec!": {
        "runPolicy": {},
        "pytorchReplicaSpecs": {names.REPLICA_MASTER: _REPLICA, names.REPLICA_WORKER: _REPLICA},
    },
}
_PROGRESS: Shape = {
    **dict.fromkeys(("epoch", "epochs", "step", "steps", "checkpointStep"), int),
    **dict.fromkeys(("loss", "top1"), NUMBER),
}
_JOB_STATUS: Shape = {
    "conditions": [_CONDITION],
    "progress": _PROGRESS,
    "cause": str,
    "restarts": int,
    "generation": int,
    "startTime": str,
    "history": [{}],
}
_CONTAINER: Shape = {"name": str, "state": {"terminated": {"exitCode!": int}, "waiting": {}, "running": {}}}
_POD_STATUS: Shape = {"phase": str, "reason": str, "containerStatuses": [_CONTAINER], "conditions": [_CONDITION]}
_KINDS: dict[str, Shape] = {
    names.PYTORCHJOB.kind: {"metadata!": _METADATA, "status": _JOB_STATUS},
    names.POD.kind: {"metadata!": _METADATA, "status": _POD_STATUS},
    names.EVENT.kind: {"metadata!": _METADATA, "involvedObject": {}, "count": int, "type": str, "lastTimestamp": str},
}
_ANY_KIND: Shape = {"metadata!": _METADATA}
_RANK: Shape = {"rank!": int, "local_rank": int, "node": int, "pid": int}
_SUPERVISOR: dict[str, Shape] = {
    "pid": int,
    "started": str,
    "boot": str,
    "socket": str,
    "ended": {"code!": int, "message!": str},
}


class Damaged(EnvironmentProblem):
    """A file of a run's folder does not say what was written there."""

    def __init__(self, path: Path, reason: object) -> None:
        self.path = path
        super().__init__(f"{path} is damaged: {reason}", hint=way_on(path.parent))


def way_on(folder: Path) -> str:
    """What helps a run with a damaged file, as the run is: advice that is refused is none."""
    name, going = folder.name, False
    with contextlib.suppress(OSError):  # then it is no lock
        going = locks.is_held(folder / LOCK)
    if going:
        return f"the run goes on: look again in a moment; platform cancel {name} stops it"
    if can_begin(folder):
        return f"platform resume {name} goes on from its newest checkpoint"
    return (
        f"neither {JOB} nor {SPEC} says how to go on; what the run has made is in {folder / 'output'}: "
        "train again under another --name"
    )


def can_begin(folder: Path) -> bool:
    """Whether a run can go on without a snapshot: by its job.json, or by its classifier.yaml, which that is made of."""
    job = _job(folder / JOB)
    if isinstance(job, dict) and job["metadata"]["name"] == folder.name:
        return True
    from trainserve.spec.load import load  # pydantic takes its time

    try:
        load(folder / SPEC)
    except SpecError:
        return False
    return True


def set_aside(path: Path) -> None:
    """Give a damaged file, or what is in its place, another name."""
    aside = path.with_name(f"{path.name}{DAMAGED}")
    if aside.is_dir() and not aside.is_symlink():
        remove_folder(aside)
    path.rename(aside)


def read_job(path: Path) -> Manifest:
    """The PyTorchJob of a job.json. Raises Damaged, also where there is none."""
    job = _job(path)
    if isinstance(job, str):
        raise Damaged(path, job)
    return job


def read_objects(path: Path) -> list[Manifest]:
    """All objects of a snapshot; none before there is one. Raises Damaged."""
    snapshot = _json(path)
    if snapshot is _MISSING:
        return []
    if isinstance(snapshot, _Unread):
        raise Damaged(path, snapshot.reason)
    objects = snapshot.get("objects") if isinstance(snapshot, dict) else None
    if not isinstance(objects, list) or not all(
        _fits(item, {"kind!": str}) and _fits(item, _KINDS.get(item["kind"], _ANY_KIND)) for item in objects
    ):
        raise Damaged(path, "it holds no snapshot of objects")
    return objects


def read_ranks(folder: Path) -> list[dict[str, Any]]:
    """The ranks of a pod's folder: rank, local_rank, node, pid. None of an agent that did not come that far."""
    rows = _json(folder / "ranks.json")
    return [row for row in rows if _fits(row, _RANK)] if isinstance(rows, list) else []


def read_supervisor(path: Path) -> dict[str, Any]:
    """Pid and socket of the last supervisor, and how it ended if it failed; {} where that is not known.

    It only says how to reach a supervisor, and the next one writes it anew, so damage is no error.
    """
    found = _json(path)
    if not isinstance(found, dict):
        return {}
    return {key: found[key] for key, shape in _SUPERVISOR.items() if key in found and _fits(found[key], shape)}


def _job(path: Path) -> Manifest | str:
    """A job, or why there is none."""
    job = _json(path)
    if isinstance(job, _Unread):
        return job.reason
    return job if _fits(job, _JOB) else "it holds no job"


@dataclass(frozen=True)
class _Unread:
    """Why there is nothing to read."""

    reason: str


_MISSING = _Unread("it is missing")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return _MISSING
    except IsADirectoryError:
        return _Unread("it is a folder")
    except (ValueError, RecursionError) as error:
        return _Unread(str(error))


def _fits(value: Any, shape: Shape) -> bool:
    """Whether a value is as `shape` says. A number is no yes or no."""
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return False
        for field, expected in shape.items():
            name = field.rstrip("!")
            if name in value:
                if not _fits(value[name], expected):
                    return False
            elif field != name:
                return False
        return True
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(item, shape[0]) for item in value)
    return isinstance(value, shape) and not isinstance(value, bool)
