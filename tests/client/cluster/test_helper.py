"""The pod that mounts a claim: what it is, and that it is gone afterwards whatever happens."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.pipes import Pipe
from trainserve.client.cluster import helper
from trainserve.client.cluster.connect import Place
from trainserve.client.cluster.helper import beside, helper_pod, mounted
from trainserve.client.listener import Listener
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names
from trainserve.kube.cluster import Manifest, NotFound, Page

PLACE = Place(None, "team")


class Cluster:
    """Of an API server what a helper pod needs."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        self.pods: dict[str, Manifest] = {}
        self.removed: list[str] = []
        self.claims = {"pictures"}
        self.status: Manifest = {"phase": "Running", "containerStatuses": [{"ready": True}]}
        self.commands: list[list[str]] = []

    async def get(self, kind: Any, namespace: str, name: str) -> Manifest:
        if kind == names.CLAIM:
            if name not in self.claims:
                raise NotFound(f"no {name}")
            return {}
        return {**self.pods[name], "status": self.status}

    async def list(self, kind: Any, namespace: str, **_: Any) -> Page:
        return Page(list(self.pods.values()), "1", None)

    async def create(self, kind: Any, namespace: str, manifest: Manifest) -> Manifest:
        self.pods[manifest["metadata"]["name"]] = manifest
        return manifest

    async def delete(self, kind: Any, namespace: str, name: str, **_: Any) -> None:
        if self.pods.pop(name, None) is None:
            raise NotFound(f"no {name}")
        self.removed.append(name)

    @asynccontextmanager
    async def exec(self, namespace: str, pod: str, container: str, command: list[str]) -> AsyncIterator[Pipe]:
        self.commands.append(list(command))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c",
            "import sys; from pathlib import Path; from trainserve.launch.reach import serve; "
            "serve(sys.stdin.buffer, sys.stdout.buffer, Path(sys.argv[1]), Path(sys.argv[2]))",
            str(self.folder), str(self.folder / ".sign"),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield Pipe(process)
        finally:
            process.kill()
            await process.wait()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Cluster:
    found = Cluster(tmp_path)

    @asynccontextmanager
    async def opened(place: Place, listener: Listener) -> AsyncIterator[Any]:
        class Session:
            cluster = found

        yield Session()

    monkeypatch.setattr(helper, "opened", opened)
    return found


@pytest.mark.slow
def test_a_claim_is_read_and_written_and_the_pod_goes(cluster: Cluster) -> None:
    with mounted("pictures", "sub/path", PLACE, Listener()) as folder:
        folder.write("rose/1.png", b"picture")
        assert [item.name for item in folder.list("rose")] == ["rose/1.png"]
        (pod,) = cluster.pods.values()
        assert pod["spec"]["activeDeadlineSeconds"] == names.HELPER_LONGEST_S
    assert cluster.pods == {}
    assert cluster.commands == [["python", "-m", "trainserve.launch.reach", "serve", "/volume/sub/path"]]
    assert (cluster.folder / "rose" / "1.png").read_bytes() == b"picture"


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_it_goes_when_the_work_is_interrupted(cluster: Cluster, error: type[BaseException]) -> None:
    with pytest.raises(error), mounted("pictures", "", PLACE, Listener()):
        raise error
    assert cluster.pods == {}
    assert len(cluster.removed) == 1


def test_a_claim_that_is_not_there_makes_no_pod(cluster: Cluster) -> None:
    with (
        pytest.raises(UserError, match="no claim 'flowers' in namespace team"),
        mounted("flowers", "", PLACE, Listener()),
    ):
        pytest.fail("there is no such claim")
    assert cluster.removed == []


def test_a_pod_that_does_not_start_is_told_and_removed(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "START_S", 0.0)
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    cluster.status = {"phase": "Pending", "containerStatuses": [{"ready": False, "state": {"waiting": waiting}}]}
    with (
        pytest.raises(EnvironmentProblem, match="does not start: ImagePullBackOff: no such image") as caught,
        mounted("pictures", "", PLACE, Listener()),
    ):
        pytest.fail("it has not started")
    assert "--image" in str(caught.value.hint)
    assert cluster.pods == {}


@pytest.mark.slow
def test_what_killed_commands_have_left_is_removed_and_nothing_else(cluster: Cluster) -> None:
    for name, phase in (("old", "Failed"), ("done", "Succeeded"), ("working", "Running")):
        labels = {names.LABEL_HELPER: names.HELPER_REACH}
        cluster.pods[name] = {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": {"phase": phase}}
    cluster.pods["other"] = {"metadata": {"name": "other"}, "spec": {}, "status": {"phase": "Failed"}}
    with mounted("pictures", "", PLACE, Listener()):
        pass
    assert list(cluster.pods) == ["working", "other"]


def test_it_passes_pod_security_restricted_and_has_no_rights() -> None:
    pod = helper_pod("pictures", "team", name="x", image="i", read_only=True)
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
    assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "pictures", "readOnly": True}
    assert container["volumeMounts"][0]["readOnly"] is True


def test_it_goes_to_the_node_of_whoever_uses_the_claim() -> None:
    pod = helper_pod("pictures", "team", name="x", image="i", read_only=False)
    volumes = [{"persistentVolumeClaim": {"claimName": "pictures"}}, {"emptyDir": {}}]
    tolerations = [{"key": "gpu", "operator": "Exists"}]

    def user(phase: str, node: str | None, claims: list[Manifest]) -> Manifest:
        spec = {"nodeName": node, "volumes": claims, "tolerations": tolerations}
        return {"metadata": {}, "spec": spec, "status": {"phase": phase}}

    others = [user("Succeeded", "a", volumes), user("Running", "b", volumes[1:]), user("Pending", None, volumes)]
    assert beside(pod, "pictures", others) == pod
    there = beside(pod, "pictures", [*others, user("Running", "c", volumes)])["spec"]
    (term,) = there["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["c"]}]}
    assert there["tolerations"] == tolerations
