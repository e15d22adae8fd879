"""One process a run: API server in memory, controller, kubelet, control socket.

    python -m trainserve.local.supervisor RUNDIR [--resume] [--owner-fd N] [--lock-fd N]

It ends when the job is finished, or suspended and without processes. Everything it knows is in objects.json, so a run
goes on from there whenever and however it ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainserve import log as logging_setup
from trainserve.errors import EXIT_ENVIRONMENT, EXIT_OK, EXIT_RUN_FAILED, EnvironmentProblem, PlatformError, UserError
from trainserve.kube import moments, names
from trainserve.kube.cluster import Manifest, NotFound
from trainserve.kube.names import LOCAL_NAMESPACE, PYTORCHJOB
from trainserve.local import control
from trainserve.local.kubelet import Kubelet
from trainserve.local.progress import ProgressReader
from trainserve.local.rundir import RunDir
from trainserve.local.server import MemoryCluster
from trainserve.machine import clock, temporary
from trainserve.machine.clock import Steady
from trainserve.machine.files import write_json
from trainserve.machine.processes import myself
from trainserve.operator.main import Controller

log = logging.getLogger(__name__)

DEBOUNCE_S = 0.1  # changes come in bursts: one snapshot for each
LINGER_S = 60.0  # for pods of a finished job to end by themselves
RETRY_S = 1.0  # between two tries to write a snapshot to a disk that refuses
MAX_GRACE_S = 24 * 3600
QUIET_S = 0.3  # without a running pod before the end, so that the controller has had its say
FINISHED = {names.SUCCEEDED, names.FAILED}


class FolderGone(EnvironmentProblem):
    """Somebody has removed or renamed the run's folder, or its lock file."""


class Supervisor:
    """A run in progress."""

    def __init__(self, run: RunDir, owner_fd: int | None, lock: int) -> None:
        self.run_dir = run
        self._owner_fd = owner_fd
        self._lock = lock
        self._clock = Steady(_newest_moment(run))
        self._cluster = _restored(run, self._clock)
        self._dirty = asyncio.Event()
        self._cluster.on_change = self._dirty.set
        self._ended = asyncio.Event()
        self._stops = 0
        self._kill_at: float | None = None  # by clock.elapsed
        self._killer: asyncio.Task[None] | None = None
        self._disk_refuses = False

    async def run(self, *, resume: bool) -> None:
        """Until the job has ended and its processes are gone."""
        await self._prepare_job(resume=resume)
        read_end, write_end = os.pipe()  # the write end is in no other process: it closes when this one dies
        kubelet = Kubelet(self._cluster, self.run_dir.pods_path, lifeline=read_end, clock=self._clock)
        progress = ProgressReader(self.run_dir.events_path)
        controller = Controller(self._cluster, LOCAL_NAMESPACE, clock=self._clock, progress_source=progress)
        verbs: dict[str, control.Handler] = {"get": self._get, "suspend": self._suspend}
        async with control.serve(verbs) as socket:
            self._write_supervisor(socket)
            self._watch_signals()
            parts = [
                asyncio.create_task(controller.run(), name="controller"),
                asyncio.create_task(kubelet.run(), name="kubelet"),
                asyncio.create_task(self._save_snapshots(), name="snapshots"),
                asyncio.create_task(self._until_over(kubelet), name="end"),
            ]
            try:
                done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # a part that fails takes the run with it, with its traceback in the log
            finally:
                for task in (*parts, *([self._killer] if self._killer else [])):
                    task.cancel()
                await asyncio.gather(*parts, return_exceptions=True)
                await kubelet.stop()
                if self.run_dir.holds(self._lock):
                    self._snapshot()
        os.close(write_end)
        os.close(read_end)

    async def _prepare_job(self, *, resume: bool) -> None:
        job = self.run_dir.job()
        if job is None:
            # Of a run whose snapshot was damaged the folders of its pods are there, and keep their names.
            last = self.run_dir.last_generation()
            await self._create_job(generation=last + 1 if last else 0)
        elif resume and _condition(job) == names.FAILED:
            # Failed is final in the API, so the run gets a new job; generations go on, and so do the pods' folders.
            history = self.run_dir.path / "history"
            history.mkdir(exist_ok=True)
            write_json(history / f"job-{job['metadata']['uid']}.json", job, indent=2)
            for kind in (names.POD, PYTORCHJOB):
                for item in self.run_dir.objects(kind):
                    await self._cluster.delete(kind, LOCAL_NAMESPACE, item["metadata"]["name"], grace_period_s=0)
            await self._create_job(generation=int(job.get("status", {}).get("generation", 0)) + 1)
        elif resume:
            annotations = {names.ANNOTATION_SUSPEND_REASON: None}
            await self._patch({"metadata": {"annotations": annotations}, "spec": {"runPolicy": {"suspend": False}}})

    async def _create_job(self, *, generation: int) -> None:
        job = self.run_dir.own_job()
        policy = job["spec"].get("runPolicy", {})
        if policy.pop("ttlSecondsAfterFinished", None) is not None:
            log.warning(
                "spec.runPolicy.ttlSecondsAfterFinished has no effect: a run's folder stays until it is removed"
            )
        await self._cluster.create(PYTORCHJOB, LOCAL_NAMESPACE, job)
        if generation:
            status = {"status": {"generation": generation}}
            await self._cluster.patch(PYTORCHJOB, LOCAL_NAMESPACE, self.run_dir.name, status, subresource="status")

    async def _job(self) -> Manifest:
        return await self._cluster.get(PYTORCHJOB, LOCAL_NAMESPACE, self.run_dir.name)

    # What the control socket offers.

    async def _get(self) -> dict[str, Any]:
        page = await self._cluster.list(names.POD, LOCAL_NAMESPACE)
        return {"job": await self._job(), "pods": page.items, "ranks": self.run_dir.ranks()}

    async def _suspend(self, reason: str, graceSeconds: float | None = None) -> dict[str, Any]:  # noqa: N803
        grace_s = names.CANCEL_GRACE_S if graceSeconds is None else graceSeconds
        if isinstance(grace_s, bool) or not isinstance(grace_s, int | float) or not 0 <= grace_s <= MAX_GRACE_S:
            raise UserError(f"suspend: graceSeconds: {graceSeconds!r} is not a number from 0 to {MAX_GRACE_S}")
        log.info("suspend: %s; what is left after %g s is killed", reason, grace_s)
        annotations = {names.ANNOTATION_SUSPEND_REASON: reason}
        answer = await self._patch({"metadata": {"annotations": annotations}, "spec": {"runPolicy": {"suspend": True}}})
        end = clock.elapsed() + grace_s
        if self._kill_at is None or end < self._kill_at:  # asked again, it may be sooner and is never later
            self._kill_at = end
            if self._killer:
                self._killer.cancel()
            self._killer = asyncio.create_task(self._kill_when_due(grace_s))
        return answer

    async def _kill_when_due(self, grace_s: float) -> None:
        """Delete the pods with force once their time is over, also those that the controller was about to create."""
        await asyncio.sleep(grace_s)
        told = False
        while not self._ended.is_set():
            for pod in (await self._cluster.list(names.POD, LOCAL_NAMESPACE)).items:
                if pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
                    continue
                if grace_s and not told:
                    log.warning("still running %g s after they were asked to stop: the pods are killed", grace_s)
                    told = True
                with contextlib.suppress(NotFound):
                    await self._cluster.delete(names.POD, LOCAL_NAMESPACE, pod["metadata"]["name"], grace_period_s=0)
            await asyncio.sleep(0.05)

    async def _patch(self, patch: Manifest) -> dict[str, Any]:
        return {"job": await self._cluster.patch(PYTORCHJOB, LOCAL_NAMESPACE, self.run_dir.name, patch)}

    # What ends it.

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, signal.Signals(number).name)
        if self._owner_fd is not None:
            os.set_blocking(self._owner_fd, False)
            loop.add_reader(self._owner_fd, self._owner_ended)

    def _signalled(self, name: str) -> None:
        self._stops += 1
        if self._stops > 1:
            log.warning("%s again: everything is killed", name)
            self._ended.set()
            return
        self._soon(self._suspend(f"the supervisor got {name}"))

    def _owner_ended(self) -> None:
        assert self._owner_fd is not None
        asyncio.get_running_loop().remove_reader(self._owner_fd)
        self._soon(self._suspend(names.SUSPEND_BY_OWNER))

    def _soon(self, what: Any) -> None:
        task = asyncio.ensure_future(what)
        self._task = task  # the loop itself holds tasks weakly

    async def _until_over(self, kubelet: Kubelet) -> None:
        """Until the job is finished, or suspended, and no pod runs any more."""
        quiet_since = finished_since = None
        while not self._ended.is_set():
            if not self.run_dir.holds(self._lock):
                raise FolderGone(f"{self.run_dir.path} was removed while the run went on: its processes are ended")
            job, now = await self._job(), time.monotonic()
            condition, over = _condition(job), is_over(job)
            finished_since = (finished_since or now) if condition in FINISHED else None
            quiet_since = (quiet_since or now) if over and not kubelet.running else None
            if quiet_since is not None and now - quiet_since >= QUIET_S:
                log.info("%s: %s", self.run_dir.name, condition)
                return
            if finished_since is not None and now - finished_since > LINGER_S:
                log.warning("%d pods still run %.0f s after the end: they are killed", kubelet.running, LINGER_S)
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 0.1)

    # What it leaves.

    async def _save_snapshots(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(DEBOUNCE_S)
            if not self.run_dir.holds(self._lock):
                continue  # the loop that looks for the end sees it too
            try:
                self._snapshot()
            except OSError as error:
                # A full disk is the ranks' to tell, in the job's status; what this process knows, it still knows.
                if not self._disk_refuses:
                    log.error("%s cannot be written: %s; tried again", self.run_dir.objects_path, error)
                self._disk_refuses = True
                self._dirty.set()
                await asyncio.sleep(RETRY_S)
            else:
                self._disk_refuses = False

    def _snapshot(self) -> None:
        self._dirty.clear()
        write_json(self.run_dir.objects_path, self._cluster.snapshot(), indent=None)

    def _write_supervisor(self, socket: Path) -> None:
        self._snapshot()
        write_json(self.run_dir.supervisor_path, {**myself().to_dict(), "socket": str(socket)})


def _restored(run: RunDir, clock: Callable[[], float]) -> MemoryCluster:
    try:
        text = run.objects_path.read_text()
    except FileNotFoundError:
        return MemoryCluster(clock)
    return MemoryCluster.restore(json.loads(text), clock)


def _newest_moment(run: RunDir) -> float:
    """The newest time in the job's status, in unix seconds: it has passed, whatever the machine's clock says now."""
    job = run.job() or {}
    status = job.get("status") or {}
    times = [status.get("startTime"), *(each.get("lastUpdateTime") for each in status.get("conditions") or [])]
    return max((moments.unix(each) or 0.0 for each in times if each), default=0.0)


def is_over(job: Manifest) -> bool:
    """Finished, or suspended as it is wanted: right after a resume the condition is still there, and is the past's."""
    suspend = bool((job["spec"].get("runPolicy") or {}).get("suspend"))
    condition = _condition(job)
    return condition in FINISHED or (condition == names.SUSPENDED and suspend)


def _condition(job: Manifest) -> str:
    """The type of the last condition that is true: the state."""
    conditions = (job.get("status") or {}).get("conditions") or []
    true = [condition["type"] for condition in conditions if condition["status"] == "True"]
    return true[-1] if true else ""


def main(argv: Sequence[str]) -> int:
    """Supervise one run; returns 0 once it has ended in whichever way, 1 when the supervisor itself failed."""
    parser = argparse.ArgumentParser(prog="python -m trainserve.local.supervisor", description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="go on with a suspended, interrupted or failed run")
    parser.add_argument("--owner-fd", type=int, help="pipe whose end of file suspends the run")
    parser.add_argument("--lock-fd", type=int, help="the run's lock, already taken")
    given = parser.parse_args(argv)
    logging_setup.setup()
    run = RunDir(given.run.absolute())
    for fd in (given.owner_fd, given.lock_fd):
        if fd is not None:
            os.set_inheritable(fd, False)  # no process of a pod may keep the lock
    try:
        # Held until the process has ended, as one that is given is: a run without lock has no process.
        lock = run.lock() if given.lock_fd is None else given.lock_fd
        control.remove_stale(run)
        temporary.remove_stale_folders()
        asyncio.run(_supervise(run, given.owner_fd, lock, resume=given.resume))
    except PlatformError as error:
        log.error("%s", error)
        if isinstance(error, FolderGone):
            run.remove_remains()
        _record_end(run, error.exit_code, error.message)
        return error.exit_code
    except Exception as error:
        log.exception("the supervisor of %s failed", run.name)
        code = EXIT_ENVIRONMENT if isinstance(error, OSError) else EXIT_RUN_FAILED  # such as a full disk
        _record_end(run, code, f"{type(error).__name__}: {error}")
        return code
    return EXIT_OK


def _record_end(run: RunDir, code: int, message: str) -> None:
    """Tell whoever follows why the supervisor ended; best effort, since the disk may be what failed."""
    try:
        write_json(run.supervisor_path, {**run.supervisor(), "ended": {"code": code, "message": message}})
    except OSError as error:
        log.error("%s cannot be written: %s", run.supervisor_path, error.strerror or error)


async def _supervise(run: RunDir, owner_fd: int | None, lock: int, *, resume: bool) -> None:
    await Supervisor(run, owner_fd, lock).run(resume=resume)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
