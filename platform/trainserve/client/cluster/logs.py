"""What the ranks of a run on a cluster write, line by line, from all its pods at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from trainserve.client.cluster.connect import Session
from trainserve.client.cluster.events import told_of_pods
from trainserve.client.cluster.pending import waits_for
from trainserve.client.cluster.podlog import Lines
from trainserve.client.cluster.run import ClusterRun, has_ended, job_of, state
from trainserve.client.cluster.watch import Watched, watching
from trainserve.client.logs import LogLine
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names, replicas
from trainserve.kube.cluster import ApiError, Forbidden, Manifest
from trainserve.kube.names import POD
from trainserve.kube.outage import Unauthorized

QUEUED = 10_000  # lines that wait for whoever prints them; then the reading waits
AGAIN_S = 0.5  # until a log that broke off is asked for again
LOOK_S = 1.0
EVENTS_EVERY_S = 3.0
TRIES = 5  # for the end of a log whose node does not answer
RUNNING, ENDED, PREVIOUS, GONE = "running", "ended", "previous", "gone"  # of one start of a container
LAST_WORDS_S = 30.0  # for pods that are still ending when the job has


@dataclass(frozen=True)
class Start:
    """One start of a container. `restarts`: how often it was started before."""

    pod: str
    uid: str
    generation: str
    container: str
    restarts: int
    is_main: bool

    @property
    def prefix(self) -> str:
        return f"{self.pod}.g{self.generation}" + ("" if self.is_main else f"/{self.container}")


@dataclass(frozen=True)
class Wish:
    """Which lines: `tail`, of each container only so many of the newest; `previous`, only of its last start but one."""

    follow: bool = False
    rank: int | None = None
    tail: int | None = None
    previous: bool = False


async def lines(session: Session, run: ClusterRun, wish: Wish) -> AsyncIterator[list[LogLine]]:
    """The lines, some at a time: with `follow` as they come, until the job has ended; else pod after pod.

    Raises UserError for a run without a log and a rank that it has not, EnvironmentProblem when it is deleted.
    """
    if wish.follow:
        async with watching(session, run) as watched:
            async for some in _Follower(session, watched, wish).lines():
                yield some
        return
    job = await job_of(session, run)
    wanted = pod_of_rank(job, wish.rank, run)
    pods = (await session.cluster.list(POD, run.place.namespace, labels={names.LABEL_JOB_NAME: run.name})).items
    found = False
    for pod in in_order(pods, wanted):
        for start in starts(pod, previous=wish.previous):
            reader = Reader(session, run.place.namespace, start, wish.tail)
            async for some in reader.once(previous=start.restarts < _restarts(pod, start)):
                found = found or bool(some)
                yield some
    if not found:
        raise await _no_log(session, run, job, pods)


def pod_of_rank(job: Manifest, rank: int | None, run: ClusterRun) -> str | None:
    """The name of the pod in which this rank runs. Raises UserError where the job has none, or it is not known."""
    if rank is None:
        return None
    processes = str(job["spec"].get("nprocPerNode") or "1")
    if not processes.isdigit() or replicas.is_elastic(job):
        why = "it is elastic" if replicas.is_elastic(job) else f"nprocPerNode is {processes}"
        raise UserError(
            f"in which pod of run {str(run)!r} rank {rank} runs is not known: {why}",
            hint=f"platform logs {run} shows all of them",
        )
    nodes = replicas.replicas(job)
    if rank >= len(nodes) * int(processes):
        raise UserError(f"run {str(run)!r} has no rank {rank}", hint=f"platform status {run}")
    return names.replica_name(run.name, *nodes[rank // int(processes)])


def in_order(pods: Sequence[Manifest], only: str | None) -> list[Manifest]:
    """Oldest generation first, Master before workers, of this name where one is given."""
    return sorted((pod for pod in pods if only in (None, pod["metadata"]["name"])), key=_order)


def _order(pod: Manifest) -> tuple[int, int, int]:
    labels = pod["metadata"].get("labels") or {}
    index = labels.get(names.LABEL_REPLICA_INDEX, "0")
    is_worker = labels.get(names.LABEL_REPLICA_TYPE, "") == names.REPLICA_WORKER.lower()
    return int(labels.get(names.LABEL_GENERATION, "0")), int(is_worker), int(index)


def starts(pod: Manifest, *, previous: bool = False) -> Iterator[Start]:
    """The starts of its containers of which there is a log: init containers first, of each the one before the last too.

    A kubelet keeps no more than these. With `previous` only those before the last.
    """
    labels = pod["metadata"].get("labels") or {}
    mains = {each["name"] for each in pod["spec"].get("containers") or []}
    for each in _containers(pod):
        restarts = int(each.get("restartCount", 0))
        now, before = each.get("state") or {}, (each.get("lastState") or {}).get("terminated")
        there = [restarts - 1] if before and restarts else []
        if ("running" in now or "terminated" in now) and not previous:
            there.append(restarts)
        for number in there:
            yield Start(
                pod["metadata"]["name"],
                pod["metadata"]["uid"],
                labels.get(names.LABEL_GENERATION, "0"),
                each["name"],
                number,
                is_main=each["name"] == names.CONTAINER or mains == {each["name"]},
            )


def _containers(pod: Manifest) -> list[Manifest]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _restarts(pod: Manifest, start: Start) -> int:
    return next((int(each.get("restartCount", 0)) for each in _containers(pod) if each["name"] == start.container), 0)


class NotGiven(EnvironmentProblem):
    """A node does not give the log of a pod."""


class PodsGone(UserError):
    """There are no pods any more: what they wrote is in the output, if anywhere."""


def gone(run: ClusterRun, job: Manifest) -> PodsGone:
    """What to say of a run that has ended and has no pod any more."""
    return PodsGone(f"the pods of run {str(run)!r} are gone, and their logs with them: its state is {state(job)}")


class Reader:
    """One log, each line once. `where` and what it answers: see `_Follower.where`."""

    def __init__(self, session: Session, namespace: str, start: Start, tail: int | None) -> None:
        self._session = session
        self._namespace = namespace
        self._start = start
        self._tail = tail
        self._lines = Lines()

    async def once(self, *, previous: bool) -> AsyncIterator[list[LogLine]]:
        """What is there now; nothing where the node has thrown it away."""
        try:
            async for some in self._connection(follow=False, previous=previous):
                yield some
        except ApiError as error:
            if isinstance(error, (Forbidden, Unauthorized)):
                raise
            if error.status >= 500:
                raise NotGiven(
                    f"the log of pod {self._start.pod} cannot be read: its node does not give it: {error.message}",
                    hint="is the node alive? kubectl get nodes",
                ) from error
            return
        yield self._said(self._lines.end())

    async def followed(self, where: Callable[[], str]) -> AsyncIterator[list[LogLine]]:
        """As it is written, until the container has ended. A connection that breaks off is made again."""
        failures = 0
        while (found := where()) != GONE:
            has_ended = found != RUNNING  # asked before the reading: what was written until the end is read then
            try:
                async for some in self._connection(follow=not has_ended, previous=found == PREVIOUS):
                    failures = 0
                    yield some
            except (Forbidden, Unauthorized):
                raise
            except ApiError as error:
                if has_ended and error.status < 500:
                    break  # the node has thrown it away
                failures += 1
                if failures == TRIES:
                    self._session.listener.notice(
                        f"the log of pod {self._start.pod} cannot be read, and is asked for again: {error.message}"
                    )
            except OSError:
                pass  # the server is away: whoever watches the job bears that for so long, and tells it
            else:
                if has_ended:
                    break
            if has_ended and failures >= TRIES:
                break
            await asyncio.sleep(AGAIN_S)
        yield self._said(self._lines.end())

    async def _connection(self, *, follow: bool, previous: bool) -> AsyncIterator[list[LogLine]]:
        self._lines.again()
        query = {"container": self._start.container, "timestamps": "true"}
        query |= {"follow": "true"} if follow else {}
        query |= {"previous": "true"} if previous else {}
        if self._lines.since is not None:
            query["sinceTime"] = self._lines.since
        elif self._tail is not None:
            query["tailLines"] = str(self._tail)
        async for piece in self._session.cluster.read_log(self._namespace, self._start.pod, query):
            some = self._said(self._lines.feed(piece))
            if some:
                yield some

    def _said(self, texts: Iterator[str]) -> list[LogLine]:
        return [LogLine(self._start.prefix, text) for text in texts]


class _Follower:
    """Reads the logs of all pods at a time, and tells what they wait for."""

    def __init__(self, session: Session, watched: Watched, wish: Wish) -> None:
        self._session = session
        self._watched = watched
        self._wish = wish
        self._only = pod_of_rank(watched.job, wish.rank, watched.run)
        self._queue: asyncio.Queue[list[LogLine]] = asyncio.Queue(QUEUED)
        self._reading: dict[Start, asyncio.Task[None]] = {}
        self._told = ""
        self._events: list[Manifest] = []
        self._events_at = float("-inf")

    async def lines(self) -> AsyncIterator[list[LogLine]]:
        looking = asyncio.create_task(self._look())
        try:
            while not (looking.done() and self._queue.empty()):
                getting = asyncio.create_task(self._queue.get())
                await asyncio.wait((getting, looking), return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    yield getting.result()
                else:
                    getting.cancel()
            looking.result()
            if self._watched.is_gone:
                raise self._watched.run.gone()
            if not self._reading and not self._watched.pods:
                raise gone(self._watched.run, self._watched.job)
        finally:
            await _cancel(looking, *self._reading.values())

    async def _look(self) -> None:
        """Read what starts, until the job has ended and what it wrote is read."""
        watched = self._watched
        ended_at: float | None = None
        while True:
            self._begin()
            over = watched.is_gone or has_ended(watched.job)
            if not over:
                ended_at = None
                await self._tell_waiting()
                await watched.next(LOOK_S)
                continue
            if ended_at is None:  # what started and ended just before the job did may not be heard of yet
                ended_at = time.monotonic()
                await watched.next(AGAIN_S)
                continue
            going = [task for task in self._reading.values() if not task.done()]
            if not going:
                return
            if time.monotonic() - ended_at > LAST_WORDS_S:
                await _cancel(*going)
                return
            await asyncio.wait(going, timeout=LOOK_S)
            await watched.next(0.0)

    def _begin(self) -> None:
        for pod in in_order(self._watched.pods, self._only):
            for start in starts(pod, previous=self._wish.previous):
                if start not in self._reading:
                    self._reading[start] = asyncio.create_task(self._read(start))
        for task in self._reading.values():
            if task.done():
                task.result()

    async def _read(self, start: Start) -> None:
        reader = Reader(self._session, self._watched.run.place.namespace, start, self._wish.tail)
        async for some in reader.followed(lambda: self._where(start)):
            if some:
                await self._queue.put(some)

    def _where(self, start: Start) -> str:
        """Which log of the container this start's is now."""
        pod = next((each for each in self._watched.pods if each["metadata"]["uid"] == start.uid), None)
        if pod is None:
            return GONE
        for each in _containers(pod):
            if each["name"] == start.container:
                since = int(each.get("restartCount", 0)) - start.restarts
                now = each.get("state") or {}
                if since == 0:
                    return RUNNING if "running" in now else ENDED  # also while it waits for its next start
                return PREVIOUS if since == 1 else GONE
        return GONE

    async def _tell_waiting(self) -> None:
        watched = self._watched
        waits = waits_for(watched.job, watched.pods, self._events)
        if waits and watched.pods and time.monotonic() - self._events_at > EVENTS_EVERY_S:
            self._events_at = time.monotonic()
            with suppress(ApiError, OSError):  # they only add to what the pods say
                self._events = await told_of_pods(self._session, watched.run)
            waits = waits_for(watched.job, watched.pods, self._events)
        if waits and waits != self._told:
            self._session.listener.notice(f"waiting: {waits}")
        self._told = waits or ""


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _no_log(session: Session, run: ClusterRun, job: Manifest, pods: Sequence[Manifest]) -> UserError:
    found = state(job)
    if not pods and found in (names.SUCCEEDED, names.FAILED, names.SUSPENDED):
        return gone(run, job)
    waits = waits_for(job, pods, await told_of_pods(session, run))
    said = f": waiting: {waits}" if waits else ""
    return UserError(
        f"run {str(run)!r} has no log yet: its state is {found}{said}", hint=f"platform logs -f {run} waits for it"
    )
