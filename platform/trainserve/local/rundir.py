"""The folder of a run (docs/architecture.md, "The run folder on a laptop"): its paths, its state, who lives in it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainserve.errors import EnvironmentProblem, UserError, nearest
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.local import records
from trainserve.local.records import Damaged
from trainserve.machine import locks
from trainserve.machine.files import remove_folder, scratch_folder, sync_folder, sync_tree, write_json, write_text
from trainserve.machine.home import home
from trainserve.machine.processes import Identity, boot_id

SCHEME = "local://"
MAX_NAME = 54  # so that `<name>-worker-N` stays a DNS label, as metadata.name of a Classifier

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
POD_FOLDER = re.compile(r"(?P<pod>.+)\.g(?P<generation>\d+)")


class NameTaken(UserError):
    """A run of this name exists."""

    def __init__(self, name: str) -> None:
        hint = f"choose another with --name, e.g. {free_name(name)}; or go on with it: platform resume {name}"
        super().__init__(f"a run named {name!r} exists already", hint=hint)


@dataclass(frozen=True)
class RunDir:
    """One run's folder. Everything can be read whether or not its supervisor lives.

    What reads `objects.json` or `job.json` raises Damaged where these are not what was written.
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def output(self) -> Path:
        return self.path / "output"

    @property
    def events_path(self) -> Path:
        return self.output / "events.jsonl"

    @property
    def spec_path(self) -> Path:
        return self.path / records.SPEC

    @property
    def job_path(self) -> Path:
        return self.path / records.JOB

    @property
    def objects_path(self) -> Path:
        return self.path / records.OBJECTS

    @property
    def supervisor_path(self) -> Path:
        return self.path / "supervisor.json"

    @property
    def supervisor_log(self) -> Path:
        return self.path / "supervisor.log"

    @property
    def lock_path(self) -> Path:
        return self.path / records.LOCK

    @property
    def pods_path(self) -> Path:
        return self.path / "pods"

    def write_spec(self, text: str) -> None:
        """Store the resolved Classifier as YAML."""
        write_text(self.spec_path, text)

    def write_job(self, job: Manifest) -> None:
        """Store the PyTorchJob that the supervisor is to create."""
        write_json(self.job_path, job, indent=2)

    def read_job(self) -> Manifest:
        """The PyTorchJob as it was asked for. Raises Damaged, also where there is none."""
        return records.read_job(self.job_path)

    def own_job(self) -> Manifest:
        """`read_job`, which a run goes on by. Raises Damaged also for that of another run: the folder was renamed."""
        job = self.read_job()
        if job["metadata"]["name"] != self.name:
            raise Damaged(self.job_path, f"it is the job of run {job['metadata']['name']!r}")
        return job

    def known_job(self) -> Manifest:
        """The PyTorchJob as it is now, else as it was asked for; {} where only the run's output is left."""
        job = self.job()
        if job is None and self.job_path.exists():
            job = self.read_job()
        return job or {}

    def lock(self) -> int:
        """Take the lock that a run's one supervisor holds; returns the file descriptor that holds it until closed.

        Raises UserError when another one has it, EnvironmentProblem when the folder is gone.
        """
        try:
            lock = locks.take(self.lock_path)
        except (FileNotFoundError, NotADirectoryError):
            self.check_there()
            raise
        if lock is None:
            raise UserError(f"run {self.name!r} is going on", hint=f"platform status {self.name}")
        if not self.holds(lock):  # the folder was removed, or another has its name, since the file was opened
            os.close(lock)
            raise self.gone()
        return lock

    def holds(self, lock: int) -> bool:
        """Whether `lock` is (still) this folder's: False once the folder or its lock file was removed or replaced."""
        try:
            return os.path.samestat(os.fstat(lock), self.lock_path.stat())
        except OSError as error:
            return error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}  # others say nothing about it

    def alive(self) -> bool:
        """Whether a supervisor holds the lock. The kernel releases it when that dies, however that happens."""
        try:
            return locks.is_held(self.lock_path)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:  # what is there now is no lock, which ends a supervisor
                return False
            raise

    def check_there(self) -> None:
        """Raises EnvironmentProblem when somebody has removed the folder since it was opened."""
        if not self.path.is_dir():
            raise self.gone()

    def gone(self) -> EnvironmentProblem:
        """What to say once somebody has removed the folder."""
        return EnvironmentProblem(f"run {self.name!r} is no longer there: {self.path} was removed")

    def supervisor(self) -> dict[str, Any]:
        """Pid and socket of the last supervisor, and how it ended if it failed; {} where that is not known."""
        return records.read_supervisor(self.supervisor_path)

    def supervisor_process(self) -> Identity | None:
        """The last supervisor's process, told apart from a later one with its pid; None where it is not known."""
        return Identity.from_dict(self.supervisor())

    def why_interrupted(self) -> str:
        """What ended the last supervisor of an interrupted run, in words."""
        found = self.supervisor()
        if found.get("ended", {}).get("message"):
            return f"its supervisor ended: {found['ended']['message']}"
        process = Identity.from_dict(found)
        if process is None:
            return "it has not begun"
        if process.boot != boot_id():
            return "the machine was restarted while it ran"
        return "its supervisor was killed"

    def objects(self, kind: names.Kind) -> list[Manifest]:
        """All objects of a kind in the last snapshot."""
        return [item for item in records.read_objects(self.objects_path) if item["kind"] == kind.kind]

    def job(self) -> Manifest | None:
        """The run's PyTorchJob with its status; None before it was created."""
        return next((job for job in self.objects(names.PYTORCHJOB) if job["metadata"]["name"] == self.name), None)

    def pods(self) -> list[Manifest]:
        """The run's pods, Master first."""
        alive = self.alive()
        pods = [pod if alive else _lost(pod) for pod in self.objects(names.POD)]
        return sorted(pods, key=lambda pod: _pod_order(pod["metadata"]["name"]))

    def remove_remains(self) -> None:
        """Remove what a rank wrote into a folder that had just been removed: it is no run any more.

        Nothing happens to a folder that has a job, a spec or a lock: that is a run, perhaps a new one of the same name.
        """
        if not any(path.exists() for path in (self.job_path, self.spec_path, self.lock_path)):
            with contextlib.suppress(FileNotFoundError):
                remove_folder(self.path)

    def last_generation(self) -> int:
        """The newest generation that has left a pod's folder; 0 where there is none."""
        matches = [POD_FOLDER.fullmatch(path.name) for path in self.pods_path.glob("*.g*")]
        return max((int(match["generation"]) for match in matches if match), default=0)

    def set_damaged_aside(self) -> bool:
        """Give a damaged snapshot another name, so that a resume begins a new job on the checkpoints that there are.

        Call it with the run's lock. False where nothing is damaged.
        """
        from trainserve.local.server import MemoryCluster  # which whoever only looks at runs does without

        try:
            if self.objects_path.exists():
                MemoryCluster.restore(json.loads(self.objects_path.read_bytes()))
                if self.objects(names.PYTORCHJOB) and self.job() is None:
                    raise LookupError(f"no job {self.name}")  # the folder was renamed
        except (Damaged, ValueError, LookupError, TypeError, AttributeError):
            records.set_aside(self.objects_path)
            return True
        return False

    def state(self) -> str:
        """Pending, Created, Running, Restarting, Succeeded, Failed, Suspended or Interrupted."""
        alive = self.alive()  # first: the last snapshot is written before the lock goes
        job = self.job()
        if job is None:
            return names.PENDING if alive else names.INTERRUPTED
        conditions = (job.get("status") or {}).get("conditions") or []
        true = [condition["type"] for condition in conditions if condition["status"] == "True"]
        last: str = true[-1] if true else names.PENDING
        if alive or last in {names.SUCCEEDED, names.FAILED, names.SUSPENDED}:
            return last
        return names.INTERRUPTED

    def ranks(self) -> list[dict[str, Any]]:
        """Ranks that run now: rank, local_rank, node, pid, pod. Empty when no supervisor lives."""
        if not self.alive():
            return []
        found: list[dict[str, Any]] = []
        for pod in self.pods():
            if pod.get("status", {}).get("phase") == "Running":
                rows = records.read_ranks(self.pods_path / pod_folder(pod))
                found += [{**row, "pod": pod["metadata"]["name"]} for row in rows]
        return sorted(found, key=lambda row: row["rank"])

    def log_files(self, rank: int | None = None) -> list[Path]:
        """Logs that say something, oldest generation first; with `rank` those of the pods that had this rank.

        Where a pod has several ranks, each of their lines begins with `[rank N] `.
        """
        found: list[tuple[int, tuple[int, int], str, Path]] = []
        for folder in self.pods_path.glob("*.g*"):
            match = POD_FOLDER.fullmatch(folder.name)
            if match is None or (rank is not None and not _had_rank(folder, rank)):
                continue
            logs = [log for log in folder.glob("*.log") if log.stat().st_size]
            found += [(int(match["generation"]), _pod_order(match["pod"]), log.name, log) for log in logs]
        return [log for *_, log in sorted(found)]


def refuse_taken(name: str) -> None:
    """Raises UserError for a name that is taken or is no name."""
    check_name(name)
    if (home() / "runs" / name).exists():
        raise NameTaken(name)


def create(name: str, fill: Callable[[RunDir], object] = bool) -> RunDir:
    """A new run, with what `fill` writes into its folder: the folder appears whole, by one rename, or not at all.

    Raises NameTaken, of two at the same time for one, and UserError for what is no name.
    """
    refuse_taken(name)
    runs = home() / "runs"
    with scratch_folder(runs / name) as folder:
        draft = RunDir(folder / name)  # it has its name already, for what `fill` says about it
        draft.path.mkdir()
        draft.output.mkdir()
        draft.pods_path.mkdir()
        fill(draft)
        sync_tree(draft.path)
        try:
            draft.path.rename(runs / name)  # fails on a folder that holds something, as every run's does
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise NameTaken(name) from None
            raise
    sync_folder(runs)
    return RunDir(runs / name)


def open_run(name: str) -> RunDir:
    """The run `name` or `local://name`. Raises UserError, with the most alike name, when there is none."""
    plain = name.removeprefix(SCHEME)
    if "://" in plain:
        raise UserError(f"{name!r}: only runs on this machine are known here", hint=f"{SCHEME}NAME or NAME")
    if _NAME.fullmatch(plain) and (home() / "runs" / plain).is_dir():
        return RunDir(home() / "runs" / plain)
    alike = nearest(plain, [run.name for run in all_runs()])
    guess = f", did you mean {alike!r}?" if alike else ""
    raise UserError(f"no such run {plain!r} in {home()}{guess}", hint="platform list shows all runs")


def all_runs() -> list[RunDir]:
    """All runs on this machine, by name."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(
            (RunDir(entry) for entry in (home() / "runs").iterdir() if _NAME.fullmatch(entry.name) and entry.is_dir()),
            key=lambda run: run.name,
        )
    return []


def free_name(base: str) -> str:
    """A name that no run has, made of `base`: `flowers`, `flowers-2`, `flowers-3`, ..."""
    for candidate in _numbered(word_for(base)):
        if not (home() / "runs" / candidate).exists():
            return candidate
    raise AssertionError("endless numbers have an end")


def word_for(base: str) -> str:
    """The name of a run that is most like `base`, with room for a number."""
    word = re.sub(r"[^a-z0-9]+", "-", base.lower()).strip("-")
    word = word if word[:1].isalpha() else f"run-{word}".strip("-")
    return word[: MAX_NAME - 4].rstrip("-")


def check_name(name: str) -> None:
    """Raises UserError unless `name` can be a run's: before any path is built of it."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise UserError(
            f"{name!r} is no name for a run: a letter, then lower-case letters, digits and -, at most {MAX_NAME}",
            hint=f"for example {free_name(name)}",
        )


def _numbered(word: str) -> Iterator[str]:
    yield word
    number = 2
    while True:
        yield f"{word}-{number}"
        number += 1


def _lost(pod: Manifest) -> Manifest:
    """A pod as it is once nobody is left who runs it: a snapshot may still say that it runs."""
    status = pod.get("status", {})
    if status.get("phase") in {"Succeeded", "Failed"}:
        return pod
    return {**pod, "status": {**status, "phase": "Unknown", "reason": names.REASON_NODE_LOST}}


def pod_folder(pod: Manifest) -> str:
    """`<pod>.g<generation>`: the pod's folder below `pods/`; POD_FOLDER reads it back."""
    generation = pod["metadata"].get("labels", {}).get(names.LABEL_GENERATION, "0")
    return f"{pod['metadata']['name']}.g{generation}"


def _had_rank(folder: Path, rank: int) -> bool:
    return any(row["rank"] == rank for row in records.read_ranks(folder))


def _pod_order(pod: str) -> tuple[int, int]:
    """Master, then workers by number."""
    head, _, index = pod.rpartition("-")
    return (0 if head.endswith("-master") else 1, int(index) if index.isdigit() else 0)
