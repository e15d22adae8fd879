"""A run on a cluster: its name, what its PyTorchJob says of it, and how a typed name is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NotRequired, cast

from trainserve.client.cluster.connect import Place, Session, default_namespace
from trainserve.client.runs import CLUSTER_SCHEME as SCHEME
from trainserve.client.runs import reference
from trainserve.errors import EnvironmentProblem, PlatformError, UserError, nearest
from trainserve.kube import names
from trainserve.kube.cluster import Manifest, NotFound
from trainserve.kube.job import plain
from trainserve.observe.summary import Summary, summarize

TERMINATING = "Terminating"  # a state that only a run on a cluster has: its job is being deleted
FINISHED = (names.SUCCEEDED, names.FAILED)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LONGEST_NAME = 253  # letters of any object's
_MOST_LISTED = 500


class ClusterSummary(Summary):
    """A run of a cluster in a few numbers. `context` is there where the current one is another."""

    namespace: str
    context: NotRequired[str]


@dataclass(frozen=True)
class ClusterRun:
    """The PyTorchJob `name` in a place; whether there is one, only the cluster knows."""

    place: Place
    name: str

    def __str__(self) -> str:
        return reference(self.summary_keys())

    def summary_keys(self) -> dict[str, str]:
        """What a summary says of where it is."""
        named = {"context": self.place.context} if self.place.is_asked_for and self.place.context else {}
        return {"name": self.name, "namespace": self.place.namespace, **named}

    def gone(self) -> EnvironmentProblem:
        """What to say of a run that was there, and is not any more."""
        return EnvironmentProblem(f"run {self} is no longer there: its PyTorchJob was deleted")


def parse(name: str, context: str | None, *, namespace: str | None = None, is_asked_for: bool = False) -> ClusterRun:
    """`k8s://NAMESPACE/NAME[@CONTEXT]`, or a bare name, which is one of `namespace` (None: the kubeconfig's).

    Raises UserError for what can be no name.
    """
    plain, _, named = name.removeprefix(SCHEME).partition("@")
    context, is_asked_for = named or context, is_asked_for or bool(named)
    within, slash, last = plain.rpartition("/")
    if name.startswith(SCHEME) and not slash:
        raise UserError(f"{name!r} names no namespace", hint=f"{SCHEME}NAMESPACE/NAME")
    for part in (*([within] if slash else []), last):
        if not _NAME.fullmatch(part) or len(part) > _LONGEST_NAME:
            raise UserError(
                f"{name!r:.200} is no name of a run", hint=f"{SCHEME}NAMESPACE/NAME, as platform list shows it"
            )
    chosen = within or namespace or default_namespace(context)
    return ClusterRun(Place(context, chosen, is_asked_for=is_asked_for), last)


async def job_of(session: Session, run: ClusterRun) -> Manifest:
    """The run's PyTorchJob. Raises UserError, with the most alike name, where there is none."""
    try:
        return await session.cluster.get(names.PYTORCHJOB, run.place.namespace, run.name)
    except NotFound:
        raise await _no_such_run(session, run) from None


async def _no_such_run(session: Session, run: ClusterRun) -> PlatformError:
    try:
        page = await session.cluster.list(names.PYTORCHJOB, run.place.namespace, limit=_MOST_LISTED)
    except NotFound:
        return no_kind()
    alike = nearest(run.name, [job["metadata"]["name"] for job in page.items])
    guess = f", did you mean {alike!r}?" if alike else ""
    return UserError(
        f"no such run {run.name!r} in namespace {run.place.namespace}{guess}",
        hint=f"{run.place.kubectl()} get pytorchjobs shows all of them",
    )


def no_kind() -> EnvironmentProblem:
    """What to say where the cluster does not know PyTorchJobs."""
    return EnvironmentProblem(
        f"this cluster has no {names.PYTORCHJOB.plural}.{names.PYTORCHJOB.group}: the controller is not installed",
        hint="helm install trainserve helm/platform-operator, or kubectl apply -k manifests/overlays/default",
    )


def state(job: Manifest) -> str:
    """Pending, Created, Running, Restarting, Succeeded, Failed, Suspended or Terminating."""
    if "deletionTimestamp" in job["metadata"]:
        return TERMINATING
    conditions = (job.get("status") or {}).get("conditions") or []
    true = [each["type"] for each in conditions if each["status"] == "True" and each["type"] != names.VERSION_SKEW]
    return true[-1] if true else names.PENDING


def has_ended(job: Manifest) -> bool:
    """Whether nothing of it goes on: it is finished, or suspended with its pods gone."""
    return state(job) in (*FINISHED, names.SUSPENDED)


def summary(job: Manifest, place: Place | None = None) -> ClusterSummary:
    """The job in a few numbers, as of its status. `place` is where it was asked for."""
    metadata, status = job["metadata"], job.get("status") or {}
    found = summarize(metadata["name"], state(job), job, [])
    progress = status.get("progress") or {}
    found["imagesPerSecond"] = progress.get("imagesPerSecond")
    if found["state"] == names.RUNNING:
        found["etaSeconds"] = progress.get("etaSeconds")
    said = [each for each in status.get("conditions") or [] if each["status"] == "True"]
    found["message"] = said[-1].get("message", "") if said else found["message"]
    short = cast("ClusterSummary", {**found, "namespace": metadata["namespace"]})
    if place is not None and place.is_asked_for and place.context:
        short["context"] = place.context
    return short


def output_of(job: Manifest) -> str | None:
    """Where the run writes: `pvc://CLAIM/sub/path`, a bucket's URL or `hostpath:///dir`; None where it is not known."""
    spec, container, env = _leader_spec(job), _leader(job), _env(job)
    if env.get(names.ENV_STORE):
        return env[names.ENV_STORE]
    path = env.get(names.ENV_OUTPUT)
    if not path:
        return None
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or []}
    for mount in sorted(container.get("volumeMounts") or [], key=lambda each: -len(each["mountPath"])):
        root = mount["mountPath"].rstrip("/")
        if path != root and not path.startswith(f"{root}/"):
            continue
        below = "/".join(filter(None, (mount.get("subPath", "").strip("/"), path[len(root) :].strip("/"))))
        volume = volumes.get(mount["name"], {})
        if "persistentVolumeClaim" in volume:
            return "/".join(filter(None, (f"pvc://{volume['persistentVolumeClaim']['claimName']}", below)))
        if "hostPath" in volume:
            return "/".join(filter(None, (f"hostpath://{volume['hostPath']['path'].rstrip('/')}", below)))
    return None


def spec_of(job: Manifest) -> str:
    """The Classifier as its pods were given it, JSON; "" of a job without one."""
    return _env(job).get(names.ENV_SPEC, "")


def _env(job: Manifest) -> dict[str, str]:
    """Of the container that trains, as a process in it sees what its template says."""
    return {entry["name"]: plain(entry.get("value") or "") for entry in _leader(job).get("env") or []}


def _leader(job: Manifest) -> Manifest:
    """The container that trains in the pod of rank 0; {} of a job that is refused for having none."""
    each = _leader_spec(job).get("containers") or []
    return next((container for container in each if container.get("name") == names.CONTAINER), {})


def _leader_spec(job: Manifest) -> Manifest:
    specs = job["spec"].get("pytorchReplicaSpecs") or {}
    replica = specs.get(names.REPLICA_MASTER) or specs.get(names.REPLICA_WORKER) or {}
    spec: Manifest = (replica.get("template") or {}).get("spec") or {}
    return spec
