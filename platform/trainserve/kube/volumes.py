"""Where a training pod on a cluster sees its data, cache, weights and output. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.spec import location
from trainserve.spec.classifier import Classifier
from trainserve.spec.location import Claim, HostPath, Url


@dataclass(frozen=True)
class Paths:
    """What the pod is told: paths inside of it, or the URL that it fetches."""

    data: str
    cache: str | None = None
    weights: str | None = None
    output: str | None = None  # None: a pod that has no part in it
    store: str | None = None  # the URL that `output` is sent to


@dataclass
class Volumes:
    """A pod's volumes, and what its container mounts. One claim is one volume, however often it is mounted."""

    volumes: list[Manifest] = field(default_factory=list)
    mounts: list[Manifest] = field(default_factory=list)
    _claims: dict[str, Manifest] = field(default_factory=dict)

    def claim(self, name: str, claim: str, path: str, *, read_only: bool) -> None:
        volume = self._claims.get(claim)
        if volume is None:
            source: Manifest = {"claimName": claim, **({"readOnly": True} if read_only else {})}
            volume = {"name": name, "persistentVolumeClaim": source}
            self._claims[claim] = volume
            self.volumes.append(volume)
        elif not read_only:
            volume["persistentVolumeClaim"].pop("readOnly", None)
        self._mount(str(volume["name"]), path, read_only=read_only)

    def host_path(self, name: str, host: str, path: str, *, read_only: bool) -> None:
        kind = "Directory" if read_only else "DirectoryOrCreate"
        self.volumes.append({"name": name, "hostPath": {"path": host, "type": kind}})
        self._mount(name, path, read_only=read_only)

    def empty(self, name: str, path: str, *, memory: str | None = None) -> None:
        """A folder that goes with the pod; with `memory` one in memory, of that size."""
        source: Manifest = {} if memory is None else {"medium": "Memory", "sizeLimit": memory}
        self.volumes.append({"name": name, "emptyDir": source})
        self._mount(name, path, read_only=False)

    def _mount(self, name: str, path: str, *, read_only: bool) -> None:
        self.mounts.append({"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})})


def volumes(classifier: Classifier, *, with_output: bool) -> tuple[Volumes, Paths]:
    """The volumes of one pod. `with_output`: rank 0 may be in it.

    Data is mounted whole, and read-only; the spec's path goes on inside. A claim for the output is mounted by those
    alone who write to it, so that one which a single node can mount will do.
    """
    found = Volumes()
    spec = classifier.spec
    cache = None
    match location.parse(spec.data.path):
        case Claim(name, sub):
            found.claim(names.VOLUME_DATA, name, names.MOUNT_DATA, read_only=True)
            data = _below(names.MOUNT_DATA, sub)
        case HostPath(path):
            found.host_path(names.VOLUME_DATA, path, names.MOUNT_DATA, read_only=True)
            data = names.MOUNT_DATA
        case Url(url):
            data, cache = url, _cache(found, spec.data.cache)
        case folder:
            raise AssertionError(f"{folder} is no place that a pod sees")
    weights = _weights(found, spec.model.weights) if with_output else spec.model.weights
    output, store = _output(found, spec.train.output or "", classifier.metadata.name) if with_output else (None, None)
    found.empty(names.VOLUME_TMP, names.MOUNT_TMP)
    if spec.pod.shared_memory is not None:
        found.empty(names.VOLUME_SHM, names.MOUNT_SHM, memory=str(spec.pod.shared_memory))
    return found, Paths(data, cache, weights, output, store)


def _cache(found: Volumes, cache: str | None) -> str:
    match location.parse(cache) if cache else None:
        case Claim(name, sub):
            found.claim(names.VOLUME_CACHE, name, names.MOUNT_CACHE, read_only=False)
            return _below(names.MOUNT_CACHE, sub)
        case HostPath(path):
            found.host_path(names.VOLUME_CACHE, path, names.MOUNT_CACHE, read_only=False)
        case _:
            found.empty(names.VOLUME_CACHE, names.MOUNT_CACHE)
    return names.MOUNT_CACHE


def _weights(found: Volumes, weights: str | None) -> str | None:
    match location.parse(weights) if weights else None:
        case Claim(name, sub):
            found.claim(names.VOLUME_WEIGHTS, name, names.MOUNT_WEIGHTS, read_only=True)
            return _below(names.MOUNT_WEIGHTS, sub)
        case HostPath(path):
            found.host_path(names.VOLUME_WEIGHTS, path.rpartition("/")[0] or "/", names.MOUNT_WEIGHTS, read_only=True)
            return _below(names.MOUNT_WEIGHTS, path.rpartition("/")[2])
    return weights


def _output(found: Volumes, output: str, run: str) -> tuple[str, str | None]:
    match location.parse(output):
        case Claim(name, sub):
            found.claim(names.VOLUME_OUTPUT, name, names.MOUNT_OUTPUT, read_only=False)
            return _below(_below(names.MOUNT_OUTPUT, sub), run), None
        case Url(url):
            found.empty(names.VOLUME_OUTPUT, names.MOUNT_OUTPUT)
            return _below(names.MOUNT_OUTPUT, run), f"{url.rstrip('/')}/{run}"
    raise AssertionError(f"{output!r} is no store")


def _below(folder: str, sub: str) -> str:
    return f"{folder}/{sub}" if sub else folder
