"""The evidence that a run's folder holds, and the diagnosis made of it. Works whether or not the supervisor lives."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.local import records, rundir
from trainserve.local.rundir import POD_FOLDER, RunDir, pod_folder
from trainserve.machine.files import read_end
from trainserve.observe import events
from trainserve.observe.summary import summarize
from trainserve.observe.why.diagnose import Diagnosis, diagnose
from trainserve.observe.why.evidence import LOG_BYTES, Evidence, PodEvidence, past_pod, pod_of

MESSAGE_BYTES = 4096


def why(run: RunDir) -> Diagnosis:
    """Why `run` is as it is. Raises records.Damaged where its files do not say."""
    return diagnose(gather(run))


def gather(run: RunDir) -> Evidence:
    """Everything of a run's folder that can tell a cause."""
    run.check_there()
    state = run.state()
    job = run.job() or {}
    seen = events.ends(run.events_path)
    progress: dict[str, Any] = dict(summarize(run.name, state, run.known_job(), seen))
    progress["lastEvent"] = seen[-1]["time"] if seen else None
    supervisor = run.supervisor()
    return Evidence(
        run=run.name,
        state=state,
        now=time.time(),
        status=job.get("status") or {},
        pods=_pods(run),
        spec=_spec(run.spec_path),
        progress=progress,
        notices=[event["message"] for event in seen if event["kind"] == "notice" and "message" in event],
        spec_file=str(run.spec_path) if run.spec_path.is_file() else "",
        next_name=rundir.free_name(run.name),
        supervisor_error=supervisor.get("ended", {}).get("message", ""),
        supervisor_log=read_end(run.supervisor_log, LOG_BYTES),
        rebooted=_booted_after(run.supervisor_path),
    )


def _pods(run: RunDir) -> list[PodEvidence]:
    """Pods that have an object, then what those of earlier generations left in their folders."""
    objects: dict[str, Manifest] = {pod_folder(pod): pod for pod in run.pods()}
    found = []
    for name, pod in objects.items():
        folder = run.pods_path / name
        found.append(pod_of(pod, _log(folder), _ranks(folder)))
    for folder in sorted(run.pods_path.glob("*.g*")):
        match = POD_FOLDER.fullmatch(folder.name)
        if match is None or folder.name in objects:
            continue
        message = read_end(folder / f"{names.CONTAINER}.termination-log", MESSAGE_BYTES)
        found.append(past_pod(match["pod"], int(match["generation"]), message, _log(folder), _ranks(folder)))
    return found


def _log(folder: Path) -> str:
    """The end of the training container's log, else of the init container's, which then is as far as it came."""
    for name in (names.CONTAINER, names.INIT_CONTAINER):
        text = read_end(folder / f"{name}.log", LOG_BYTES)
        if text:
            return text
    return ""


def _ranks(folder: Path) -> list[int]:
    return [row["rank"] for row in records.read_ranks(folder)]


def _spec(path: Path) -> Mapping[str, Any]:
    """The Classifier's `spec`, for advice in its numbers; {} where there is none that can be read."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    spec = document.get("spec") if isinstance(document, dict) else None
    return spec if isinstance(spec, dict) else {}


def _booted_after(path: Path) -> bool:
    """Whether this machine was started after `path` was written; False where that cannot be told."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        written = path.stat().st_mtime
    except OSError:
        return False
    booted = next((float(line.split()[1]) for line in lines if line.startswith("btime ")), 0.0)
    return booted > written
