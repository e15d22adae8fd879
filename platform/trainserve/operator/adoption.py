"""What a change-over from Kubeflow's Training Operator changes: decided from what is there. Pure.

Two objects of Kubeflow's stand in the way: its definition of the kind PyTorchJob, of which an API server has one, and
its webhook for it, which refuses every change of a job when nobody answers. Jobs and their pods stay as they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Literal

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.crd import CRD_NAME, is_ours, pytorchjob_crd
from trainserve.kube.names import Kind
from trainserve.operator.kubeflow import Rival
from trainserve.operator.pytorchjob import conditions, invalid
from trainserve.spec.pytorchjob import crd_defaults

_MANY = 12  # names of fields in one sentence
_FREE = "x-kubernetes-preserve-unknown-fields"
Origin = Literal["missing", "ours", "foreign"]


@dataclass(frozen=True)
class Change:
    """One line for the user: `what` is so `now`, and will be `after`."""

    what: str
    now: str
    after: str


@dataclass(frozen=True)
class Plan:
    """`patches` in the order in which they are made; none where there is nothing to adopt. `origin`: of the kind."""

    origin: Origin
    changes: tuple[Change, ...] = ()
    patches: tuple[tuple[Kind, str, Manifest], ...] = ()
    rivals: tuple[Rival, ...] = ()
    outdated: bool = False  # the kind is ours, of another version

    def in_the_way(self) -> list[Rival]:
        """Those that must be stopped first. One that has a namespace of its own goes on, with the kind of ours."""
        return [rival for rival in self.rivals if rival.watches is None]

    def nothing(self) -> str:
        """Why there is nothing to adopt; only where there are no patches."""
        if self.origin == "missing":
            return f"there is nothing to adopt: the kind {names.PYTORCHJOB} is not installed in this cluster"
        other = ", of another version" if self.outdated else ""
        return f"there is nothing to adopt: the kind {names.PYTORCHJOB} of this cluster is trainserve's{other}"


def make_plan(
    crd: Manifest | None, webhooks: Manifest | None, rivals: Iterable[Rival], jobs: Iterable[Manifest]
) -> Plan:
    """By what is there: the kind's definition, Kubeflow's webhooks, its operators, all jobs."""
    ours, rivals = pytorchjob_crd(), tuple(rivals)
    if crd is None:
        origin: Origin = "missing"
    else:
        origin = "ours" if is_ours(crd) else "foreign"
    changes: list[Change] = []
    patches = []
    if crd is not None and origin == "foreign":
        changes += [*_crd_changes(crd, ours), *_job_changes(jobs)]
        patches.append((names.CRD, CRD_NAME, _crd_patch(crd, ours)))
    if webhooks is not None and _of_ours(webhooks) and all(rival.watches is None for rival in rivals):
        changes.append(_webhook_change(webhooks))
        patches.append((names.VALIDATING_WEBHOOKS, webhooks["metadata"]["name"], _webhook_patch(webhooks)))
    changes += [_rival_change(rival) for rival in rivals]
    outdated = crd is not None and origin == "ours" and _version(crd)["schema"] != _version(ours)["schema"]
    return Plan(origin, tuple(changes), tuple(patches), rivals, outdated)


def _version(crd: Manifest) -> Manifest:
    """The version of ours, else the first."""
    versions: list[Manifest] = crd["spec"]["versions"]
    return next((each for each in versions if each["name"] == names.PYTORCHJOB.version), versions[0])


def _crd_changes(crd: Manifest, ours: Manifest) -> Iterator[Change]:
    before, after = _version(crd), _version(ours)
    made_by = (crd["metadata"].get("annotations") or {}).get(names.ANNOTATION_CONTROLLER_GEN)
    maker = f", made by controller-gen {made_by}" if made_by else ""
    yield Change(f"kind {CRD_NAME}", f"{_kib(before)} KiB{maker}", f"{_kib(after)} KiB, trainserve's")
    theirs, own = _fields(before), _fields(after)
    free = tuple(f"{path}." for path, schema in own.items() if schema.get(_FREE))
    lost = {path for path in theirs.keys() - own.keys() if not path.startswith(free)}
    if lost:
        yield Change("fields of a job", _listed(lost), "refused in new jobs, dropped from old ones when they change")
    yield Change("fields of a job", "not known", _listed(own.keys() - theirs.keys()))
    yield Change(
        "pod templates",
        "checked when a job is stored",
        "containers are checked then, the rest when pods are made: the job fails with the path",
    )
    yield Change("rules", f"{_rules(before)} in the kind, others in a webhook", f"{_rules(after)} in the kind")
    yield Change("columns", ", ".join(_columns(before)), ", ".join(_columns(after)))
    scale = (before.get("subresources") or {}).get("scale")
    if scale != after["subresources"]["scale"]:
        yield Change("kubectl scale", "as it is" if scale else "not there", "scales the Workers")


def _job_changes(jobs: Iterable[Manifest]) -> Iterator[Change]:
    states: Counter[str] = Counter()
    broken = []
    for job in jobs:
        status = job.get("status") or {}
        listed = status.get("conditions") or []
        states[listed[-1]["type"] if listed else "new"] += 1
        if not conditions.is_finished(status) and (problem := invalid.problem_of(crd_defaults(job))):
            broken.append((f"job {job['metadata']['namespace']}/{job['metadata']['name']}", problem))
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    if told:
        yield Change("jobs", told, "stay; pods that run go on")
    for name, problem in broken:
        yield Change(name, "accepted", f"will be Failed: {problem}")


def _crd_patch(crd: Manifest, ours: Manifest) -> Manifest:
    """Lists are replaced as a whole by a merge patch, so nothing is left of their schema."""
    theirs = crd["metadata"].get("annotations") or {}
    gone = dict.fromkeys(key for key in (names.ANNOTATION_CONTROLLER_GEN, names.ANNOTATION_APPLIED) if key in theirs)
    return {
        "metadata": {
            "resourceVersion": crd["metadata"]["resourceVersion"],
            "labels": ours["metadata"]["labels"],
            "annotations": gone,
        },
        "spec": {"versions": ours["spec"]["versions"]},
    }


def _of_ours(webhooks: Manifest) -> list[Manifest]:
    """Its webhooks for our kind."""
    return [each for each in webhooks.get("webhooks") or [] if each["name"] == names.KUBEFLOW_WEBHOOK]


def _webhook_change(webhooks: Manifest) -> Change:
    service = (_of_ours(webhooks)[0].get("clientConfig") or {}).get("service") or {}
    where = f"asks {service['namespace']}/{service['name']}" if service else "is asked"
    others = len(webhooks["webhooks"]) - len(_of_ours(webhooks))
    return Change(
        f"webhook {names.KUBEFLOW_WEBHOOK}",
        f"{where} about every job",
        f"taken out; {others} for other kinds stay" if others else "taken out",
    )


def _webhook_patch(webhooks: Manifest) -> Manifest:
    left = [each for each in webhooks["webhooks"] if each["name"] != names.KUBEFLOW_WEBHOOK]
    return {"metadata": {"resourceVersion": webhooks["metadata"]["resourceVersion"]}, "webhooks": left}


def _rival_change(rival: Rival) -> Change:
    after = (
        f"must be stopped first: {rival.stop_command()}"
        if rival.watches is None
        else "goes on there, and keeps its webhook; this controller gets other namespaces: --namespace"
    )
    return Change("operator", str(rival), after)


def _fields(version: Manifest) -> dict[str, Manifest]:
    """Path of every field outside of pod templates -> its schema."""
    return dict(_walk((version.get("schema") or {}).get("openAPIV3Schema") or {}, ""))


def _walk(schema: Manifest, path: str) -> Iterator[tuple[str, Manifest]]:
    for name, inner in (schema.get("properties") or {}).items():
        at = f"{path}.{name}".lstrip(".")
        yield at, inner
        if name not in {"template", "metrics", "metadata"}:
            yield from _walk(inner, at)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _walk(schema[key], f"{path}[]")


def _rules(version: Manifest) -> int:
    return json.dumps(version).count('"rule": "')


def _columns(version: Manifest) -> list[str]:
    return [column["name"] for column in version.get("additionalPrinterColumns") or []]


def _listed(paths: Set[str]) -> str:
    """Without those below another of them."""
    tops = sorted(path for path in paths if not any(path.startswith((f"{top}.", f"{top}[]")) for top in paths - {path}))
    more = f" and {len(tops) - _MANY} more" if len(tops) > _MANY else ""
    return ", ".join(tops[:_MANY]) + more


def _kib(version: Manifest) -> int:
    return -(-len(json.dumps(version)) // 1024)
