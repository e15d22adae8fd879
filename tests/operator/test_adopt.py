"""What a change-over from Kubeflow's operator says and sends, by objects as Kubeflow's manifests install them."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from support.scenario import pytorchjob
from support.upstream import kubeflows_crd, webhooks
from trainserve.kube import names
from trainserve.kube.cluster import Conflict, Manifest, NotFound, Page
from trainserve.kube.crd import CRD_NAME, pytorchjob_crd
from trainserve.kube.names import Kind
from trainserve.operator import adopt
from trainserve.operator.adoption import Plan, make_plan
from trainserve.operator.kubeflow import Rival

RIVAL = Rival(names.DEPLOYMENT, "kubeflow", "training-operator")


def stored(manifest: Manifest) -> Manifest:
    """As an API server has it."""
    manifest = copy.deepcopy(manifest)
    manifest["metadata"]["resourceVersion"] = "7"
    return manifest


def told(plan: Plan) -> dict[str, tuple[str, str]]:
    return {change.what: (change.now, change.after) for change in plan.changes}


def job(name: str, state: str = "", **changes: Any) -> Manifest:
    found = pytorchjob(name)
    found["spec"] |= changes
    if state:
        found["status"] = {"conditions": [{"type": state, "status": "True"}]}
    return found


@pytest.mark.parametrize(
    ("crd", "words"),
    [
        (None, "the kind PyTorchJob is not installed in this cluster"),
        (stored(pytorchjob_crd()), "the kind PyTorchJob of this cluster is trainserve's"),
    ],
)
def test_without_kubeflow_there_is_nothing_to_adopt(crd: Manifest | None, words: str) -> None:
    plan = make_plan(crd, None, [], [])
    assert (plan.patches, plan.changes) == ((), ())
    assert plan.nothing() == f"there is nothing to adopt: {words}"


def test_an_older_kind_of_ours_is_no_matter_of_adopting() -> None:
    older = stored(pytorchjob_crd())
    del older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["nodes"]
    plan = make_plan(older, None, [], [])
    assert plan.patches == ()
    assert plan.nothing().endswith("trainserve's, of another version")


def test_the_kind_is_replaced_as_a_whole() -> None:
    plan = make_plan(stored(kubeflows_crd()), None, [], [])
    [(kind, name, patch)] = plan.patches
    assert (kind, name) == (names.CRD, CRD_NAME)
    assert patch["spec"] == {"versions": pytorchjob_crd()["spec"]["versions"]}
    assert patch["metadata"]["resourceVersion"] == "7"
    assert patch["metadata"]["annotations"] == {names.ANNOTATION_CONTROLLER_GEN: None}
    said = told(plan)
    assert "made by controller-gen v0.14.0" in said[f"kind {CRD_NAME}"][0]
    assert said["columns"] == ("State, Age", "State, Nodes, Progress, ETA, Restarts, Age")
    assert ("spec.paused", "refused in new jobs, dropped from old ones when they change") in [
        (change.now, change.after) for change in plan.changes
    ]
    assert said["kubectl scale"] == ("not there", "scales the Workers")


def test_of_the_webhooks_only_that_of_the_kind_goes() -> None:
    plan = make_plan(stored(kubeflows_crd()), stored(webhooks("tfjob", "pytorchjob", "mxjob")), [], [])
    kind, name, patch = plan.patches[1]
    assert (kind, name, patch["metadata"]) == (
        names.VALIDATING_WEBHOOKS,
        names.KUBEFLOW_WEBHOOKS,
        {"resourceVersion": "7"},
    )
    assert [each["name"].split(".")[1] for each in patch["webhooks"]] == ["tfjob", "mxjob"]
    assert told(plan)[f"webhook {names.KUBEFLOW_WEBHOOK}"] == (
        "asks kubeflow/training-operator about every job",
        "taken out; 2 for other kinds stay",
    )


def test_a_change_over_that_was_cut_short_is_finished() -> None:
    plan = make_plan(stored(pytorchjob_crd()), stored(webhooks("pytorchjob")), [], [])
    assert [kind for kind, _, _ in plan.patches] == [names.VALIDATING_WEBHOOKS]
    assert make_plan(stored(pytorchjob_crd()), stored(webhooks("tfjob")), [], []).patches == ()


def test_jobs_are_counted_and_those_that_break_a_rule_named() -> None:
    bad = job("bad", nprocPerNode="many")
    done = job("done", "Succeeded", nprocPerNode="many")  # it is over: nothing happens to it
    said = told(make_plan(stored(kubeflows_crd()), None, [], [job("a", "Running"), job("b", "Running"), bad, done]))
    assert said["jobs"] == ("2 Running, 1 Succeeded, 1 new", "stay; pods that run go on")
    assert "will be Failed: spec.nprocPerNode" in said["job team/bad"][1]
    assert "job team/done" not in said


def test_an_operator_that_works_is_named_with_what_stops_it() -> None:
    said = told(make_plan(stored(kubeflows_crd()), None, [RIVAL], []))
    assert "kubectl scale deployment training-operator --namespace kubeflow --replicas 0" in said["operator"][1]


def test_an_operator_with_a_namespace_of_its_own_goes_on() -> None:
    rival = Rival(names.DEPLOYMENT, "kubeflow", "training-operator", watches="research")
    plan = make_plan(stored(kubeflows_crd()), stored(webhooks("pytorchjob")), [rival], [])
    assert [kind for kind, _, _ in plan.patches] == [names.CRD]
    assert plan.in_the_way() == []
    assert told(plan)["operator"][1].startswith("goes on there, and keeps its webhook")
    assert make_plan(stored(kubeflows_crd()), None, [rival, RIVAL], []).in_the_way() == [RIVAL]


class Server:
    """Has these objects, two jobs a page, and writes down what is patched."""

    def __init__(self, *objects: Manifest, jobs: int = 0, refuses: Exception | None = None) -> None:
        self.objects = {each["metadata"]["name"]: each for each in objects}
        self.jobs = [job(f"job-{number}") for number in range(jobs)]
        self.patched: list[tuple[str, bool]] = []
        self.refuses = refuses

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest:
        if name not in self.objects:
            raise NotFound(name)
        return self.objects[name]

    async def list(self, kind: Kind, namespace: str | None, **options: Any) -> Page:
        if kind != names.PYTORCHJOB:
            return Page([], "1")
        start = int(options["continue_token"] or 0)
        more = str(start + 2) if start + 2 < len(self.jobs) else ""
        return Page(self.jobs[start : start + 2], "1", more)

    async def patch(
        self, kind: Kind, namespace: str | None, name: str, patch: Manifest, *, dry_run: bool = False
    ) -> Manifest:
        if self.refuses is not None:
            raise self.refuses
        self.patched.append((name, dry_run))
        return patch


def test_all_pages_of_jobs_are_looked_at_and_a_dry_run_is_one() -> None:
    server: Any = Server(stored(kubeflows_crd()), stored(webhooks("pytorchjob")), jobs=5)

    async def run() -> Plan:
        plan = await adopt.look(server)
        await adopt.change(server, plan, dry_run=True)
        return plan

    assert told(asyncio.run(run()))["jobs"][0] == "5 new"
    assert server.patched == [(CRD_NAME, True), (names.KUBEFLOW_WEBHOOKS, True)]


def test_a_kind_that_changed_meanwhile_is_a_conflict() -> None:
    server: Any = Server(stored(kubeflows_crd()), refuses=Conflict("changed"))

    async def run() -> None:
        await adopt.change(server, await adopt.look(server), dry_run=False)

    with pytest.raises(Conflict):
        asyncio.run(run())


def test_where_the_kind_is_missing_no_jobs_are_asked_for() -> None:
    server: Any = Server(jobs=1)
    server.jobs = None
    assert asyncio.run(adopt.look(server)).origin == "missing"
