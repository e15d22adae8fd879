"""Whether Kubeflow's operator works on the same jobs."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from support.rbac import UnderItsRole
from support.upstream import kubeflows_crd
from trainserve.errors import EXIT_ENVIRONMENT, EnvironmentProblem
from trainserve.kube import names
from trainserve.kube.cluster import Forbidden, Manifest, NotFound, Page
from trainserve.kube.crd import CRD_NAME, pytorchjob_crd
from trainserve.kube.moments import rfc3339_micro
from trainserve.kube.names import Kind
from trainserve.operator import kubeflow
from trainserve.operator.kubeflow import Lookout, rivals

NOW = 1_700_000_000.0


def deployment(*flags: str, replicas: int | None = 1, env: Mapping[str, str] | None = None, pods: int = 0) -> Manifest:
    """As Kubeflow's manifests have it."""
    container = {
        "name": "training-operator",
        "command": ["/manager"],
        "args": list(flags),
        "env": [
            {"name": "MY_POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            *({"name": name, "value": value} for name, value in (env or {}).items()),
        ],
    }
    spec: Manifest = {"template": {"spec": {"containers": [container]}}}
    if replicas is not None:
        spec["replicas"] = replicas
    metadata = {"name": names.KUBEFLOW_DEPLOYMENT, "namespace": "kubeflow"}
    return {"metadata": metadata, "spec": spec, "status": {"replicas": pods} if pods else {}}


def lease(renewed_s_ago: float, holder: str = "pod_uuid", namespace: str = "kubeflow") -> Manifest:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": rfc3339_micro(NOW - renewed_s_ago)}
    return {"metadata": {"name": names.KUBEFLOW_LEASE, "namespace": namespace}, "spec": spec}


@pytest.mark.parametrize(
    ("found", "watches"),
    [
        (deployment(), None),
        (deployment(replicas=None), None),
        (deployment(replicas=0, pods=1), None),  # its last pod is ending
        (deployment("--enable-scheme=tfjob", "--enable-scheme=PyTorchJob"), None),
        (deployment("--namespace=research"), "research"),
        (deployment("-namespace", "research"), "research"),
        (deployment(env={names.ENV_KUBEFLOW_NAMESPACE: "research"}), "research"),
        (deployment("--namespace=b", env={names.ENV_KUBEFLOW_NAMESPACE: "a"}), "b"),
        (deployment("--namespace=", env={names.ENV_KUBEFLOW_NAMESPACE: "a"}), None),
    ],
)
def test_where_its_deployment_works(found: Manifest, watches: str | None) -> None:
    [rival] = rivals([found], [], NOW)
    assert (rival.namespace, rival.watches) == ("kubeflow", watches)
    assert rival.stop_command().endswith("training-operator --namespace kubeflow --replicas 0")


@pytest.mark.parametrize(
    "found", [deployment(replicas=0), deployment("--enable-scheme=tfjob", "--enable-scheme=mpijob")]
)
def test_one_that_does_not_work_on_pytorchjobs_is_no_rival(found: Manifest) -> None:
    assert rivals([found], [], NOW) == []


@pytest.mark.parametrize(
    ("found", "works"), [(lease(3), True), (lease(-30), True), (lease(3600), False), (lease(3, holder=""), False)]
)
def test_a_lease_that_is_renewed_tells_one_that_has_no_such_deployment(found: Manifest, works: bool) -> None:
    assert [rival.kind for rival in rivals([], [found], NOW)] == ([names.LEASE] if works else [])


def test_a_deployment_that_says_neither_command_nor_arguments() -> None:
    found = deployment()
    found["spec"]["template"]["spec"]["containers"] = [{"name": "training-operator", "image": "i"}]
    assert [rival.watches for rival in rivals([found], [], NOW)] == [None]


def test_deployment_and_lease_are_one_operator() -> None:
    assert [rival.kind for rival in rivals([deployment()], [lease(3)], NOW)] == [names.DEPLOYMENT]


class Listed:
    """An API server that has these Deployments, or says no."""

    def __init__(self, *answers: list[Manifest] | Exception, crd: Manifest | None = None) -> None:
        self.answers = list(answers)
        self.crd = crd

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest:
        assert (kind, namespace, name) == (names.CRD, None, CRD_NAME)
        if self.crd is None:
            raise NotFound(name)
        return self.crd

    async def list(self, kind: Kind, namespace: str | None, *, fields: Mapping[str, str]) -> Page:
        assert namespace is None
        assert fields["metadata.name"] in {names.KUBEFLOW_DEPLOYMENT, names.KUBEFLOW_LEASE}
        if kind == names.LEASE:
            return Page([], "1")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Page(answer, "1")


def lookout(
    *answers: list[Manifest] | Exception, namespaces: tuple[str, ...] = (), crd: Manifest | None = None
) -> Lookout:
    cluster: Any = UnderItsRole(Listed(*answers, crd=crd or pytorchjob_crd()))  # type: ignore[arg-type]
    return Lookout(cluster, namespaces)


def test_a_controller_does_not_begin_beside_it() -> None:
    with pytest.raises(EnvironmentProblem, match="kubeflow/training-operator") as caught:
        asyncio.run(lookout([deployment()]).look())
    assert caught.value.exit_code == EXIT_ENVIRONMENT
    assert "--replicas 0" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("ours", "meets"), [((), True), (("research",), True), (("a", "research"), True), (("a", "b"), False)]
)
def test_namespaces_of_their_own_keep_them_apart(ours: tuple[str, ...], meets: bool) -> None:
    here = lookout([deployment("--namespace=research")], namespaces=ours)
    if meets:
        with pytest.raises(EnvironmentProblem):
            asyncio.run(here.look())
    else:
        asyncio.run(here.look())


def applied_over_ours() -> Manifest:
    """Kubeflow's, by server-side apply: lists are replaced, labels stay."""
    return {**kubeflows_crd(), "metadata": pytorchjob_crd()["metadata"]}


def older() -> Manifest:
    crd = copy.deepcopy(pytorchjob_crd())
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["nodes"]
    return crd


@pytest.mark.parametrize(
    ("crd", "words", "hint"),
    [
        (kubeflows_crd(), "is not trainserve's here", "platform operator adopt"),
        (applied_over_ours(), "is not trainserve's here", "platform operator adopt"),
        (older(), "does not know status.nodes", "kubectl apply -k manifests/base/crds"),
    ],
)
def test_a_kind_that_would_refuse_what_the_controller_writes(crd: Manifest, words: str, hint: str) -> None:
    with pytest.raises(EnvironmentProblem, match=words) as caught:
        asyncio.run(lookout([], crd=crd).look())
    assert hint in str(caught.value.hint)


def test_a_kind_that_is_missing_may_come_yet(caplog: pytest.LogCaptureFixture) -> None:
    cluster: Any = Listed([])
    asyncio.run(Lookout(cluster, ()).look())
    assert "hint: kubectl apply -k manifests/base/crds" in caplog.text


def test_one_that_comes_later_ends_the_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeflow, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(kubeflow, "RETRY_S", 0.01)
    here = lookout([], OSError("away"), [], [], [deployment()])

    async def run() -> None:
        await here.look()
        await asyncio.wait_for(here.run(), 10)

    with pytest.raises(EnvironmentProblem):
        asyncio.run(run())


def test_an_account_that_may_not_look_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    here = lookout(Forbidden("deployments.apps is forbidden"))

    async def run() -> None:
        await here.look()
        await here.look()

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert [record.message for record in caplog.records] == [
        "whether Kubeflow's operator is here cannot be seen by this account: deployments.apps is forbidden"
    ]
