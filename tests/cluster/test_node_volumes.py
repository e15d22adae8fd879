"""Volumes of pods on a node of processes: claims, paths of the machine, empty folders, environment from Secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kubectl import Kubectl
from support.nodeprocess import AddNode, Pods, added_nodes
from support.real import Team
from support.runs import terminated, wait_until
from support.volumes import claim_of


@pytest.fixture
def add_node(kubectl: Kubectl, tmp_path: Path) -> Iterator[AddNode]:
    yield from added_nodes(kubectl, tmp_path)


async def test_a_claim_a_path_and_an_empty_folder_are_seen_where_the_pod_wants_them(
    add_node: AddNode, team: Team, kubectl: Kubectl, tmp_path: Path
) -> None:
    node = add_node("one")
    pictures, runs, host = (tmp_path / name for name in ("pictures", "runs", "host"))
    for folder in (pictures, host):
        folder.mkdir()
        (folder / "a").write_text(f"{folder.name}\n")
    runs.mkdir()
    claim_of(kubectl, "pictures", pictures)
    claim_of(kubectl, "runs", runs)
    node.wait_ready()
    pods = Pods(team)
    volumes = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "pictures", "readOnly": True}},
        {"name": "output", "persistentVolumeClaim": {"claimName": "runs"}},
        {"name": "host", "hostPath": {"path": str(host), "type": "Directory"}},
        {"name": "made", "hostPath": {"path": str(tmp_path / "made/deep"), "type": "DirectoryOrCreate"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts = [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in volumes]
    mounts[0]["mountPath"] = "/data"
    script = (
        "cat /data/a /host/a; echo x > /data/b; echo done > /output/c; echo 1 > /made/d; echo 2 > /tmp/e; ls /tmp/e"
    )
    await pods.create("good", script, volumes=volumes, container_volumeMounts=mounts)
    good = await pods.phase("good", "Succeeded", "Failed")
    said = node.log_of("good", "main")
    assert terminated(good)["exitCode"] == 0, said
    assert said.splitlines()[:2] == ["pictures", "host"]
    assert "Read-only file system" in said
    assert said.splitlines()[-1] == "/tmp/e"
    assert (runs / "c").read_text() == "done\n"
    assert (tmp_path / "made/deep/d").read_text() == "1\n"
    assert not Path("/tmp/e").exists()
    left = list(node.pods.glob("*_good_*/volumes"))
    wait_until(lambda: not any(path.exists() for path in left), "what was in emptyDirs is gone")


async def test_environment_comes_from_secrets_and_config_maps(add_node: AddNode, team: Team, kubectl: Kubectl) -> None:
    node = add_node("one")
    kubectl("create", "secret", "generic", "bucket", "--from-literal=KEY=word", "--from-literal=BOTH=secret")
    kubectl("create", "configmap", "more", "--from-literal=BOTH=map")
    node.wait_ready()
    sources = [{"secretRef": {"name": "bucket"}}, {"configMapRef": {"name": "more"}}]
    sources.append({"secretRef": {"name": "nowhere", "optional": True}})
    pods = Pods(team)
    await pods.create("good", "echo $KEY $BOTH", container_envFrom=sources)
    await pods.create("bad", "true", container_envFrom=[{"secretRef": {"name": "nowhere"}}])
    await pods.phase("good", "Succeeded", "Failed")
    assert node.log_of("good", "main") == "word map\n"
    bad = await pods.phase("bad", "Succeeded", "Failed")
    assert f"there is no Secret nowhere in namespace {team.namespace}" in bad["status"]["message"]


async def test_what_is_no_folder_of_the_machine_is_told(
    add_node: AddNode, team: Team, kubectl: Kubectl, tmp_path: Path
) -> None:
    node = add_node("one")
    claim_of(kubectl, "elsewhere", tmp_path, server="files.example")
    node.wait_ready()
    pods = Pods(team)
    mounted = {"container_volumeMounts": [{"name": "disk", "mountPath": "/data"}]}
    await pods.create(
        "nfs", "true", volumes=[{"name": "disk", "persistentVolumeClaim": {"claimName": "elsewhere"}}], **mounted
    )
    await pods.create("gone", "true", volumes=[{"name": "disk", "hostPath": {"path": "/no-such-path"}}], **mounted)
    nfs = await pods.phase("nfs", "Succeeded", "Failed")
    assert nfs["status"]["reason"] == "NotSupportedLocally"
    assert "is no folder of this machine" in nfs["status"]["message"]
    gone = await pods.phase("gone", "Succeeded", "Failed")
    assert "this machine has no /no-such-path" in gone["status"]["message"]
