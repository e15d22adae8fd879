"""Volumes and environment of a node's pods from other objects: claims, Secrets, ConfigMaps.

A volume that is to be seen at another path than this machine has it is mounted there for the pod's processes alone
(mounts.py). What is no folder of this machine makes the pod fail with a reason.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Manifest, NotFound
from trainserve.local import mounts
from trainserve.local.podspec import CannotRun, Process, is_token

if TYPE_CHECKING:
    from trainserve.kube.client import KubeCluster

log = logging.getLogger(__name__)

VOLUMES, ROOT = "volumes", "root"  # in the pod's folder
_TEMPORARY = 0o1777  # of an emptyDir, as the machine's /tmp has it
_MAKES = {"DirectoryOrCreate"}


@dataclass(frozen=True)
class Found:
    """What a pod's objects are on this machine: `paths` of its volumes by name, `given` is environment by container."""

    folder: Path
    paths: Mapping[str, Path]
    given: Mapping[str, Mapping[str, str]]
    read_only: frozenset[str] = frozenset()

    def entered(self, process: Process, container: Manifest) -> Process:
        """The process as one that sees the container's mounts."""
        found = [
            {
                "source": str(_below(self.paths[mount["name"]], mount.get("subPath"))),
                "target": mount["mountPath"].rstrip("/") or "/",
                "readOnly": bool(mount.get("readOnly")) or mount["name"] in self.read_only,
            }
            for mount in container.get("volumeMounts") or []
            if mount["name"] in self.paths
        ]
        if all(each["source"] == each["target"] for each in found):
            return process
        root = self.folder / ROOT / container["name"]
        root.mkdir(parents=True, exist_ok=True)
        plan = {
            "root": str(root),
            "mounts": found,
            "keep": [str(self.folder), *_own_program()],
            "message": process.env[names.ENV_TERMINATION_LOG],
        }
        words = (sys.executable, "-I", "-S", mounts.__file__, json.dumps(plan))
        return replace(process, argv=(*words, *process.argv))


async def find(cluster: KubeCluster, pod: Manifest, folder: Path) -> Found:
    """Raises CannotRun for what cannot be had here, in a sentence."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    paths: dict[str, Path] = {}
    read_only: set[str] = set()
    used = {mount["name"] for container in _containers(spec) for mount in container.get("volumeMounts") or []}
    for volume in spec.get("volumes") or []:
        name = volume["name"]
        if name not in used or is_token(volume) or _is_shared_memory(volume, spec):
            continue
        if "emptyDir" in volume:
            paths[name] = _empty(folder / VOLUMES / name)
        elif "hostPath" in volume:
            paths[name] = _host_path(name, volume["hostPath"])
        elif "persistentVolumeClaim" in volume:
            paths[name] = await _claimed(cluster, namespace, name, volume["persistentVolumeClaim"]["claimName"])
            if volume["persistentVolumeClaim"].get("readOnly"):
                read_only.add(name)
        else:
            kind = next((key for key in volume if key != "name"), "nothing")
            raise CannotRun(
                f"volume {name}: {kind} is not supported on a node of processes; "
                "supported are emptyDir, hostPath, and claims whose volume is a folder of this machine"
            )
    moved = any(str(path) != mount["mountPath"].rstrip("/") for path, mount in _mounted(spec, paths))
    if moved and sys.platform != "linux":
        raise CannotRun("volumes at other paths than this machine's need Linux")
    given = {each["name"]: await _environment(cluster, namespace, each) for each in _containers(spec)}
    return Found(folder, paths, given, frozenset(read_only))


async def _claimed(cluster: KubeCluster, namespace: str, volume: str, claim: str) -> Path:
    at = f"volume {volume}: claim {claim}"
    try:
        bound = (await cluster.get(names.CLAIM, namespace, claim))["spec"].get("volumeName")
        if not bound:
            raise CannotRun(f"{at} has no volume yet")
        source = (await cluster.get(names.VOLUME, None, bound))["spec"]
    except (ApiError, OSError) as error:
        raise CannotRun(f"{at} cannot be looked up: {error}") from error
    if "local" in source:
        path = Path(source["local"]["path"])
        if not path.is_dir():
            raise CannotRun(f"{at}: its volume {bound} is {path}, and this machine has no such folder")
        return path
    if "hostPath" in source:
        return _host_path(f"{volume} of claim {claim}", source["hostPath"])
    raise CannotRun(
        f"{at}: its volume {bound} is no folder of this machine; supported are volumes of the types local and hostPath"
    )


def forget(folder: Path) -> None:
    """Remove what pods wrote into their emptyDirs; what cannot be removed is told, and goes with the logs."""
    for name in (VOLUMES, ROOT):
        try:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
        except OSError as error:
            log.warning("volumes of a pod that is over cannot be removed: %s", error)


def _host_path(volume: str, source: Manifest) -> Path:
    path = Path(source["path"])
    if source.get("type") in _MAKES:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotRun(f"volume {volume}: {path} cannot be made: {error.strerror}") from error
    if not path.exists():
        raise CannotRun(f"volume {volume}: this machine has no {path}")
    return path


def _empty(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(_TEMPORARY)
    except OSError as error:
        raise CannotRun(f"{path} cannot be made: {error.strerror}") from error
    return path


async def _environment(cluster: KubeCluster, namespace: str, container: Manifest) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in container.get("envFrom") or []:
        kind, source = (
            (names.SECRET, each["secretRef"]) if "secretRef" in each else (names.CONFIG_MAP, each["configMapRef"])
        )
        try:
            holder = await cluster.get(kind, namespace, source["name"])
        except NotFound as error:
            if source.get("optional"):
                continue
            raise CannotRun(f"envFrom: there is no {kind} {source['name']} in namespace {namespace}") from error
        except (ApiError, OSError) as error:
            raise CannotRun(f"envFrom: {kind} {source['name']} cannot be read: {error}") from error
        for key, value in (holder.get("data") or {}).items():
            text = base64.b64decode(value).decode(errors="replace") if kind == names.SECRET else value
            found[f"{each.get('prefix') or ''}{key}"] = text
    return found


def _below(path: Path, sub: str | None) -> Path:
    return path / sub if sub else path


def _is_shared_memory(volume: Manifest, spec: Manifest) -> bool:
    """The machine's own /dev/shm does for it."""
    at = {mount["mountPath"].rstrip("/") for name, mount in _mounts(spec) if name == volume["name"]}
    return volume.get("emptyDir", {}).get("medium") == "Memory" and at == {names.MOUNT_SHM}


def _mounted(spec: Manifest, paths: Mapping[str, Path]) -> Iterator[tuple[Path, Manifest]]:
    return ((paths[name], mount) for name, mount in _mounts(spec) if name in paths)


def _mounts(spec: Manifest) -> Iterator[tuple[str, Manifest]]:
    return ((mount["name"], mount) for each in _containers(spec) for mount in each.get("volumeMounts") or [])


def _containers(spec: Manifest) -> list[Manifest]:
    return [*(spec.get("initContainers") or []), *spec["containers"]]


def _own_program() -> list[str]:
    """Folders without which what a pod runs is not found: Python, this package, a checkout's handlers, programs.

    A volume at /tmp may be above all of them.
    """
    source = Path(__file__).parents[2]
    programs = filter(os.path.isabs, os.environ.get("PATH", "").split(os.pathsep))
    wanted = [Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), source, source.parent / "handlers"]
    return [str(path) for path in (*wanted, *map(Path, programs)) if path.is_dir()]
