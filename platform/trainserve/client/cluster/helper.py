"""A short-lived, unprivileged pod that mounts a claim, so that this machine reaches what is in it.

It is removed when the block ends, however it ends. Where this command is killed, the pod ends by itself after
HELPER_IDLE_S without a request, and the next one removes what is left of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from trainserve.client.cluster.connect import Place, Session, in_words, opened
from trainserve.client.cluster.remote import Remote
from trainserve.client.listener import Listener
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names, security
from trainserve.kube.cluster import ApiError, Manifest, NotFound
from trainserve.kube.names import POD
from trainserve.spec.location import CLAIM_SCHEME

START_S = 600.0  # longest wait for the pod: its image may have many GB
LOOK_S = 0.5
TELL_S = 10.0
ALIVE_S = 30.0  # between two signs of life
MODULE = "trainserve.launch.reach"


def helper_pod(claim: str, namespace: str, *, name: str, image: str, read_only: bool) -> Manifest:
    """The pod. Whatever mounts the claim for training can do so beside it, on the same node at least."""
    mount: Manifest = {"name": "claim", "mountPath": names.HELPER_MOUNT}
    container = {
        "name": names.HELPER_CONTAINER,
        "image": image,
        "command": [names.IMAGE_PYTHON, "-m", MODULE, "hold", names.HELPER_MOUNT],
        "securityContext": security.of_container(),
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [
            {**mount, "readOnly": True} if read_only else mount,
            {"name": names.VOLUME_TMP, "mountPath": names.MOUNT_TMP},
        ],
    }
    source: Manifest = {"claimName": claim, **({"readOnly": True} if read_only else {})}
    return {
        "apiVersion": POD.api_version,
        "kind": POD.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {names.LABEL_HELPER: names.HELPER_REACH, names.LABEL_PART_OF: names.PART_OF},
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": names.HELPER_LONGEST_S,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": security.of_pod(),
            "containers": [container],
            "volumes": [
                {"name": "claim", "persistentVolumeClaim": source},
                {"name": names.VOLUME_TMP, "emptyDir": {}},
            ],
        },
    }


def beside(pod: Manifest, claim: str, pods: Iterable[Manifest]) -> Manifest:
    """`pod` on the node of the pods that use `claim` now, if there are any: many volumes are one node's at a time."""
    users = (
        each for each in pods if each.get("status", {}).get("phase") in {"Pending", "Running"} and _uses(each, claim)
    )
    user = next((each for each in users if each["spec"].get("nodeName")), None)
    if user is None:
        return pod
    here = {"key": "metadata.name", "operator": "In", "values": [user["spec"]["nodeName"]]}
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [here]}]}}
    spec = {**pod["spec"], "affinity": {"nodeAffinity": affinity}}
    if tolerations := user["spec"].get("tolerations"):
        spec["tolerations"] = tolerations
    return {**pod, "spec": spec}


def _uses(pod: Manifest, claim: str) -> bool:
    claims = (
        (volume.get("persistentVolumeClaim") or {}).get("claimName") for volume in pod["spec"].get("volumes") or []
    )
    return claim in claims


@contextmanager
def mounted(
    claim: str, sub: str, place: Place, listener: Listener, *, image: str | None = None, read_only: bool = False
) -> Iterator[Remote]:
    """The folder `sub` of a claim. Raises UserError (no such claim), EnvironmentProblem."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="reach", daemon=True)
    thread.start()
    reaching = _Reaching(claim, sub, place, listener, image or names.image_for(names.IMAGE_TRAINER), read_only)
    try:
        opening = asyncio.run_coroutine_threadsafe(reaching.open(loop), loop)
        try:
            remote = opening.result()
        except BaseException:  # Ctrl-C while the pod starts
            opening.cancel()
            raise
        beat = asyncio.run_coroutine_threadsafe(_beat(remote), loop)
        try:
            yield remote
        finally:
            beat.cancel()
    except (ApiError, OSError) as error:
        raise in_words(error) from error
    finally:
        asyncio.run_coroutine_threadsafe(reaching.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Reaching:
    """The connection, the pod and the command in it."""

    def __init__(self, claim: str, sub: str, place: Place, listener: Listener, image: str, read_only: bool) -> None:
        self._claim, self._sub, self._place, self._listener = claim, sub, place, listener
        self._name = f"{names.HELPER_PREFIX}{secrets.token_hex(4)}"
        self._pod = helper_pod(claim, place.namespace, name=self._name, image=image, read_only=read_only)
        self._stack = AsyncExitStack()
        self._session: Session | None = None

    async def open(self, loop: asyncio.AbstractEventLoop) -> Remote:
        session = await self._stack.enter_async_context(opened(self._place, self._listener))
        self._session = session
        namespace = self._place.namespace
        try:
            await session.cluster.get(names.CLAIM, namespace, self._claim)
        except NotFound:
            raise UserError(
                f"there is no claim {self._claim!r} in namespace {namespace}",
                hint=f"{self._place.kubectl()} get persistentvolumeclaims",
            ) from None
        pods = (await session.cluster.list(POD, namespace)).items
        await self._sweep(session, pods)
        await session.cluster.create(POD, namespace, beside(self._pod, self._claim, pods))
        await self._ready(session)
        root = f"{names.HELPER_MOUNT}/{self._sub}".rstrip("/")
        command = [names.IMAGE_PYTHON, "-m", MODULE, "serve", root]
        running = session.cluster.exec(namespace, self._name, names.HELPER_CONTAINER, command)
        pipe = await self._stack.enter_async_context(running)
        return Remote(f"{CLAIM_SCHEME}{self._claim}/{self._sub}".rstrip("/"), pipe, loop)

    async def close(self) -> None:
        """Remove the pod, then the connection."""
        try:
            if self._session is not None:
                with contextlib.suppress(NotFound):
                    await self._session.cluster.delete(POD, self._place.namespace, self._name, grace_period_s=0)
        except (ApiError, OSError) as error:
            self._listener.notice(
                f"pod {self._name} could not be removed ({in_words(error).message}); it ends by itself within "
                f"{names.HELPER_IDLE_S} s"
            )
        finally:
            await self._stack.aclose()

    async def _sweep(self, session: Session, pods: Sequence[Manifest]) -> None:
        """Remove what commands have left that were killed: pods that have ended."""
        for pod in pods:
            is_ours = (pod["metadata"].get("labels") or {}).get(names.LABEL_HELPER) == names.HELPER_REACH
            if is_ours and pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
                with contextlib.suppress(NotFound):
                    await session.cluster.delete(POD, self._place.namespace, pod["metadata"]["name"])

    async def _ready(self, session: Session) -> None:
        begun = told = time.monotonic()
        while True:
            pod = await session.cluster.get(POD, self._place.namespace, self._name)
            status = pod.get("status", {})
            if any(each.get("ready") for each in status.get("containerStatuses") or []):
                return
            waits = _waits_for(status)
            now = time.monotonic()
            if status.get("phase") in {"Succeeded", "Failed"} or now - begun > START_S:
                raise EnvironmentProblem(
                    f"the helper pod for claim {self._claim} does not start: {waits}",
                    hint=f"{self._place.kubectl()} describe pod -l {names.LABEL_HELPER}; another image: --image",
                )
            if now - told >= TELL_S:
                told = now
                self._listener.notice(f"waiting for pod {self._name}, which mounts claim {self._claim}: {waits}")
            await asyncio.sleep(LOOK_S)


def _waits_for(status: Manifest) -> str:
    for each in status.get("containerStatuses") or []:
        state = each.get("state") or {}
        found = state.get("waiting") or state.get("terminated") or {}
        if found:
            return ": ".join(filter(None, (found.get("reason"), found.get("message"))))
    for condition in status.get("conditions") or []:
        if condition.get("status") == "False" and condition.get("message"):
            return f"{condition.get('reason')}: {condition['message']}"
    return str(status.get("reason") or status.get("phase") or "not seen by a node yet")


async def _beat(remote: Remote) -> None:
    while True:
        await asyncio.sleep(ALIVE_S)
        await remote.beat()
