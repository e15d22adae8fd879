"""What a run on a cluster has written, wherever that is: read from its bucket, or from its claim through a helper pod.

A copy without the weights of checkpoints is kept in `$TRAINSERVE_HOME/outputs/<where>/<namespace>/<name>/`, for report,
package, serve and evaluate; what has not changed is not fetched again.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainserve.client import context as contexts
from trainserve.client.cluster.connect import ask
from trainserve.client.cluster.reach import reached
from trainserve.client.cluster.run import ClusterRun, job_of, output_of
from trainserve.client.listener import Listener
from trainserve.client.logs import LogLine
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names, replicas
from trainserve.kube.cluster import Manifest
from trainserve.machine.bucket.store import Bucket, Item
from trainserve.machine.files import scratch_folder, write_json
from trainserve.machine.home import home
from trainserve.spec.location import HOST_SCHEME
from trainserve.train.manifest import check_name

RECORD = ".fetched.json"  # name -> [bytes, version] of what was fetched
WHOLE = ("bundle/", "events.jsonl", "predictions.jsonl", "data-check.json", "weights.json")


@dataclass(frozen=True)
class Output:
    """A copy of a run's output on this machine."""

    folder: Path
    url: str
    job: Manifest | None  # None where it is deleted


@contextmanager
def opened(run: ClusterRun, listener: Listener) -> Iterator[tuple[Bucket, str, Manifest | None]]:
    """The output, its URL, and the job. Raises UserError, EnvironmentProblem where it cannot be reached."""
    url, job = where(run)
    if url.startswith(HOST_SCHEME):
        raise EnvironmentProblem(
            f"the output of {run} is {url}, a folder of the node that its first pod ran on",
            hint="copy it from there; a claim or a bucket (--output) is reached from everywhere",
        )
    with reached(url, run.place, listener, image=_image(job), read_only=True) as bucket:
        yield bucket, url, job


def where(run: ClusterRun) -> tuple[str, Manifest | None]:
    """The URL of a run's output; where its job is deleted, by the current context's. Raises UserError."""
    try:
        job = ask(run.place, lambda session: job_of(session, run))
    except UserError:  # there is none of this name
        current = contexts.read().named()
        if current.output is None or current.kube_context != run.place.context:  # or it is another cluster's
            raise
        return f"{current.output.rstrip('/')}/{run.name}", None
    url = output_of(job)
    if url is None:
        raise UserError(
            f"run {str(run)!r} has no output that is known here: it was not made by this platform",
            hint=f"{run.place.kubectl()} get pytorchjob {run.name} -o yaml",
        )
    return url, job


def fetched(run: ClusterRun, listener: Listener) -> Output:
    """What a report, a package or a server needs of the run, on this machine, as it is now.

    Raises UserError where there is nothing yet, EnvironmentProblem.
    """
    with opened(run, listener) as (bucket, url, job):
        folder = copy_of(run, url)
        items = {item.name: item for item in bucket.list() if _is_wanted(item.name, run.name)}
        if not items:
            raise UserError(f"run {str(run)!r} has written nothing to {url} yet", hint=f"platform status {run}")
        bring(bucket, items, folder, listener, label=str(run))
    return Output(folder, url, job)


def copy_of(run: ClusterRun, url: str) -> Path:
    """Where the copy is kept: two clusters may have runs of one name, and claims too."""
    place = hashlib.sha256(f"{run.place.kubeconfig}\n{run.place.context}\n{url}".encode()).hexdigest()[:8]
    return home() / "outputs" / place / run.place.namespace / run.name


def bring(bucket: Bucket, items: dict[str, Item], folder: Path, listener: Listener, *, label: str) -> None:
    """Make `folder` hold these objects as they are, each whole; what else was fetched before goes."""
    folder.mkdir(parents=True, exist_ok=True)
    known = _record(folder)
    for name in known.keys() - items.keys():
        (folder / name).unlink(missing_ok=True)
    fresh = {name: [item.size, item.version] for name, item in items.items()}
    missing = [item for name, item in items.items() if known.get(name) != fresh[name] or not (folder / name).is_file()]
    total, done = sum(item.size for item in missing), 0
    for item in sorted(missing, key=lambda item: item.name):
        check_name(item.name, bucket.url)
        target = folder / item.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target) as scratch:
            draft = scratch / target.name
            with draft.open("wb") as out:
                for piece in bucket.stream(item.name):
                    out.write(piece)
                    done += len(piece)
                    listener.downloading(label, min(done, total), total)
            draft.replace(target)
    write_json(folder / RECORD, fresh, indent=None)


def kept_logs(run: ClusterRun, listener: Listener, *, rank: int | None, tail: int | None) -> Iterator[LogLine]:
    """The lines that the Master has kept, oldest generation first. Raises UserError where there are none."""
    with opened(run, listener) as (bucket, url, _):
        found = sorted(
            (key, item.name)
            for item in bucket.list(names.LOGS_FOLDER)
            if (key := log_of(item.name)) is not None and rank in {None, key[2]}
        )
        if not found:
            what = "no log" if rank is None else f"no log of rank {rank}"
            raise UserError(f"the pods of run {str(run)!r} are gone, and there is {what} in {url}")
        for (generation, pod, _), name in found:
            lines: deque[str] | Iterator[str] = _lines(bucket, name)
            for text in deque(lines, tail) if tail is not None else lines:
                yield LogLine(f"{pod}.g{generation}", text)


def log_of(name: str) -> tuple[int, str, int] | None:
    """(generation, pod, rank) of `logs/g<N>/<pod>-rank<k>.log`, of an agent's log rank -1; None for what is none."""
    parts = name.split("/")
    if len(parts) != 3 or not parts[1].startswith("g") or not parts[1][1:].isdigit() or not parts[2].endswith(".log"):
        return None
    pod, _, who = parts[2].removesuffix(".log").rpartition("-")
    if who == "agent":
        return int(parts[1][1:]), pod, -1
    number = who.removeprefix("rank")
    return (int(parts[1][1:]), pod, int(number)) if pod and number.isdigit() and who != number else None


def _lines(bucket: Bucket, name: str) -> Iterator[str]:
    rest = b""
    for piece in bucket.stream(name):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")


def _is_wanted(name: str, run: str) -> bool:
    is_meta = name.startswith("checkpoints/step-") and name.endswith("/meta.json")
    return name.startswith(WHOLE) or is_meta or name == f"{run}.mar"


def _record(folder: Path) -> dict[str, list[object]]:
    try:
        found = json.loads((folder / RECORD).read_bytes())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _image(job: Manifest | None) -> str | None:
    """The run's own, which its nodes have."""
    specs = (job or {}).get("spec", {}).get("pytorchReplicaSpecs") or {}
    for replica in specs.values():
        return str(replicas.main_container(replica["template"]["spec"])["image"])
    return contexts.read().named().image
