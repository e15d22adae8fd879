"""What running jobs say of their progress: pods are asked in the background, and the newest answer of each is kept.

A pod is a stranger: it is asked at its own address only (or through the API server), redirects are not followed, an
answer has a limit in bytes and in seconds, and of it only the numbers of `spec.pytorchjob.Progress` are kept.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from pydantic import ValidationError

from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Manifest
from trainserve.kube.replicas import main_container
from trainserve.operator.pytorchjob import conditions
from trainserve.operator.pytorchjob.draft import PROGRESS_EVERY_S
from trainserve.operator.queue import WorkQueue
from trainserve.operator.refusals import Key
from trainserve.operator.sync import Caches
from trainserve.spec.pytorchjob import Progress

log = logging.getLogger(__name__)

Ask: TypeAlias = Callable[[Manifest, int], Awaitable[bytes]]  # pod, port -> body; raises OSError, ApiError, ValueError
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

AT_ONCE = 20  # pods asked at the same time
A_SECOND = 40  # pods asked in a second, at most: of more than 200 running jobs each is asked less often
ANSWER_S = 2.0
ANSWER_BYTES = 64 * 1024  # with the head; a progress has some hundred
TELL_AFTER = 12  # failures in a row that are worth a line in the log: a minute

_FIELDS = frozenset(field.alias for field in Progress.model_fields.values())


@dataclass
class _Seen:
    """One running job."""

    uid: str
    generation: int = 0  # that `progress` is of
    progress: Manifest | None = None
    failures: int = 0  # in a row


class ProgressPoller:
    """The `progress_source` of a controller, for `await run()` as long as that works. Calling it never waits.

    `ask` gets the answer of a pod. `changed` is told the job of which there is something new.
    """

    def __init__(
        self, ask: Ask, caches: Caches, changed: Callable[[Key], None], *, every_s: float = PROGRESS_EVERY_S
    ) -> None:
        self._ask = ask
        self._caches = caches
        self._changed = changed
        self._every_s = every_s
        self._seen: dict[Key, _Seen] = {}
        self._queue: WorkQueue[Key] = WorkQueue()

    def __call__(self, job: Manifest) -> Manifest | None:
        """The newest progress of the present gang of `job`; from now on its pod is asked for it."""
        metadata, status = job["metadata"], job.get("status") or {}
        generation = int(status.get("generation") or 0)
        if (last := self._last_words(metadata["uid"], generation)) is not None:
            return last
        if not conditions.is_true(status, names.RUNNING):
            return None
        key = (metadata["namespace"], metadata["name"])
        seen = self._seen.get(key)
        if seen is None or seen.uid != metadata["uid"]:
            self._seen[key] = _Seen(metadata["uid"])
            self._queue.add(key)
            return None
        return seen.progress if seen.generation == generation else None

    def known(self) -> list[Key]:
        """The jobs whose pods are asked."""
        return list(self._seen)

    def forget_all(self) -> None:
        """Ask nobody any more, until called for a job."""
        self._seen.clear()

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(self._work())

    async def _work(self) -> None:
        while (key := await self._queue.get()) is not None:
            try:
                again = await self._look(key)
            except Exception:  # a bug that one pod's answer brings out must not keep the jobs from being worked on
                log.exception("%s/%s: a bug as its progress was asked for", *key)
                again = True
            finally:
                self._queue.done(key)
            if again:
                self._queue.add_after(key, max(self._every_s, len(self._seen) / A_SECOND))

    async def _look(self, key: Key) -> bool:
        """Ask the job's pod, if there is one to ask; whether to ask again."""
        seen, job = self._seen.get(key), self._caches.job(*key)
        status: Manifest = (job or {}).get("status") or {}
        if seen is None:
            return False
        if job is None or job["metadata"]["uid"] != seen.uid or not conditions.is_true(status, names.RUNNING):
            self._seen.pop(key, None)
            return False
        generation = int(status.get("generation") or 0)
        pods = self._caches.pods(seen.uid)
        source = written_by_node(pods, generation) or speaker(pods, generation)
        if source is None:
            return True  # it has ended, or has not begun
        pod, answer = source
        try:
            if isinstance(answer, str):
                progress = read_progress(answer.encode())
            else:
                async with asyncio.timeout(ANSWER_S):
                    progress = read_progress(await self._ask(pod, answer))
        except (OSError, ApiError, ValueError) as error:  # a timeout is an OSError
            seen.failures += 1
            if seen.failures == TELL_AFTER:
                told = error if str(error) else f"no answer within {ANSWER_S:.0f} s"
                log.warning("%s/%s: its progress cannot be read from pod %s: %s", *key, _name(pod), told)
            return True
        seen.failures = 0
        if progress and (seen.generation, seen.progress) != (generation, progress):
            seen.generation, seen.progress = generation, progress
            self._changed(key)
        return True

    def _last_words(self, uid: str, generation: int) -> Manifest | None:
        """What the gang's speaker left in its termination message when it ended well."""
        for pod in _of_generation(self._caches.pods(uid), generation):
            for container in (pod.get("status") or {}).get("containerStatuses") or []:
                end = (container.get("state") or {}).get("terminated") or {}
                if container["name"] != names.CONTAINER or end.get("exitCode") != 0 or not end.get("message"):
                    continue
                try:
                    return _checked(_document(end["message"])["progress"])
                except (ValueError, KeyError):
                    continue  # a program's own words
        return None


def written_by_node(pods: Sequence[Manifest], generation: int) -> tuple[Manifest, str] | None:
    """A pod that has no address in the cluster's network, and what its node says that it answers."""
    for pod in _of_generation(pods, generation):
        said = (pod["metadata"].get("annotations") or {}).get(names.ANNOTATION_PROGRESS)
        if said and (pod.get("status") or {}).get("phase") == "Running":
            return pod, str(said)[:ANSWER_BYTES]
    return None


def speaker(pods: Sequence[Manifest], generation: int) -> tuple[Manifest, int] | None:
    """The pod to ask, and the port that it declares for it: the lowest rank that runs of the gang of `generation`."""
    for pod in sorted(_of_generation(pods, generation), key=_rank):
        running = (pod.get("status") or {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        ports = [
            port["containerPort"]
            for port in main_container(pod["spec"]).get("ports") or []
            if port.get("name") == names.PROGRESS_PORT_NAME
        ]
        if running and ports:
            return pod, ports[0]
    return None


def is_pod_address(address: Address) -> bool:
    """Whether it can be a pod's: not this host's own, no link's (clouds answer with credentials there), no group's."""
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None)
    )


async def ask_at_address(pod: Manifest, port: int, is_allowed: Callable[[Address], bool] = is_pod_address) -> bytes:
    """The answer of the pod at its IP, which its kubelet writes. Raises OSError, ValueError.

    HTTP/1.0: the answer ends with the connection, and is taken as it comes, neither redirected nor unpacked.
    """
    given = (pod.get("status") or {}).get("podIP")
    if not given:
        raise ValueError("it has no address")
    address = ipaddress.ip_address(given)
    if not is_allowed(address):
        raise ValueError(f"{address} is no address of a pod")
    host = f"[{address}]" if address.version == 6 else str(address)
    reader, writer = await asyncio.open_connection(str(address), port, limit=ANSWER_BYTES)
    try:
        writer.write(f"GET {names.PROGRESS_PATH} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
        answer = b""
        while piece := await reader.read(ANSWER_BYTES + 1 - len(answer)):
            answer += piece
            if len(answer) > ANSWER_BYTES:
                raise ValueError(f"its answer has more than {ANSWER_BYTES} bytes")
    finally:
        writer.transport.abort()
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or words[1] != b"200":
        raise ValueError(f"its answer begins with {head[:40]!r}")
    return body


def through_api_server(read_pod: Callable[..., Awaitable[bytes]]) -> Ask:
    """Asks by `kube.client.KubeCluster.read_pod`: for controllers that pods' addresses are out of reach of."""

    async def ask(pod: Manifest, port: int) -> bytes:
        metadata = pod["metadata"]
        return await read_pod(
            metadata["namespace"],
            metadata["name"],
            port,
            names.PROGRESS_PATH,
            limit=ANSWER_BYTES,
            timeout_s=ANSWER_S,
        )

    return ask


def read_progress(body: bytes) -> Manifest:
    """`status.progress` of an answer: known fields with values of their type and range. Raises ValueError."""
    return _checked(_document(body))


def _document(text: bytes | str) -> dict[str, Any]:
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("its answer is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("its answer is no JSON object")
    return document


def _checked(document: Any) -> Manifest:
    if not isinstance(document, dict):
        raise ValueError("its progress is no JSON object")
    known = {name: value for name, value in document.items() if name in _FIELDS}
    try:
        progress = Progress.model_validate(known)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise ValueError(f"its {first['loc'][0]} is wrong: {first['msg']}") from None
    return progress.model_dump(by_alias=True, exclude_none=True)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"its answer has {word}, which is no JSON")


def _of_generation(pods: Sequence[Manifest], generation: int) -> list[Manifest]:
    wanted = str(generation)
    return [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(names.LABEL_GENERATION) == wanted]


def _rank(pod: Manifest) -> tuple[str, int]:
    labels = pod["metadata"].get("labels") or {}
    index = labels.get(names.LABEL_REPLICA_INDEX, "")
    return labels.get(names.LABEL_REPLICA_TYPE, ""), int(index) if index.isdigit() else 0  # "master" before "worker"


def _name(pod: Manifest) -> str:
    return str(pod["metadata"]["name"])
