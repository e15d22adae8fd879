"""Names of runs on a cluster, and what an API server's answers mean, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.tiny import home_in
from trainserve.client import context
from trainserve.client.cluster import naming
from trainserve.client.cluster.connect import Place, default_namespace, in_words
from trainserve.client.cluster.patience import Patience
from trainserve.client.cluster.run import ClusterRun
from trainserve.client.runs import reference
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube.cluster import Forbidden, Invalid
from trainserve.kube.names import POD, POD_LOG
from trainserve.kube.outage import NoAnswer, Unauthorized

KUBECONFIG = """
current-context: here
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts:
- {name: here, context: {cluster: c, user: u, namespace: team}}
- {name: there, context: {cluster: c, user: u}}
"""


@pytest.fixture(autouse=True)
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(path))


def test_which_names_are_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with home_in(tmp_path / "home", monkeypatch):
        assert naming.find("digits") is None
        assert naming.find("local://digits") is None
        assert naming.find("k8s://lab/digits") == ClusterRun(Place(None, "lab"), "digits")
        assert naming.find("digits", "there") == ClusterRun(Place("there", "default", is_asked_for=True), "digits")
        assert str(naming.find("digits", "there")) == "k8s://default/digits@there"
        assert naming.find("k8s://default/digits@there") == naming.find("digits", "there")
        assert reference({"name": "digits", "namespace": "lab"}) == "k8s://lab/digits"
        assert naming.place() is None
        assert naming.place(asked=True) == Place(None, "team")
        context.save(context.Context("lab", "kubernetes", kube_context="there", namespace="ours"))
        context.use("lab")
        assert naming.find("digits") == ClusterRun(Place("there", "ours"), "digits")
        assert naming.find("k8s://lab/digits") == ClusterRun(Place("there", "lab"), "digits")
        assert naming.find("local://digits") is None
        assert naming.place() == Place("there", "ours")
        assert naming.place(namespace="other") == Place("there", "other")


@pytest.mark.parametrize(
    "name", ["k8s://digits", "k8s://", "k8s:///digits", "k8s://lab/", "k8s://lab/Digits", "k8s://a/b/c", "k8s://@there"]
)
def test_what_is_no_name_is_refused_before_anybody_is_asked(name: str) -> None:
    with pytest.raises(UserError, match="k8s://"):
        naming.find(name)


def test_the_namespace_is_the_kubeconfigs(tmp_path: Path) -> None:
    assert default_namespace(None) == "team"
    assert default_namespace("there") == "default"
    assert default_namespace(None, str(tmp_path / "none")) == "default"
    with pytest.raises(EnvironmentProblem, match="'nowhere' is not among its contexts"):
        default_namespace("nowhere")


def test_a_missing_verb_is_named_with_its_resource_and_place() -> None:
    message = (
        'pytorchjobs.kubeflow.org is forbidden: User "ann" cannot create resource "pytorchjobs" in API group '
        '"kubeflow.org" in the namespace "lab"'
    )
    said = in_words(Forbidden(message))
    assert isinstance(said, EnvironmentProblem)
    assert said.message == (
        "ann may not create pytorchjobs.kubeflow.org in namespace lab: no role of this user has the verb create for it"
    )
    assert said.hint == (
        "ask for the role edit in namespace lab: kubectl auth can-i create pytorchjobs.kubeflow.org --namespace=lab"
    )
    log = 'pods "x" is forbidden: User "ann" cannot get resource "pods/log" in API group "" in the namespace "lab"'
    assert in_words(Forbidden(log)).message.startswith("ann may not get pods/log in namespace lab:")
    everywhere = 'User "ann" cannot list resource "pytorchjobs" in API group "kubeflow.org" at the cluster scope'
    assert "in the whole cluster" in in_words(Forbidden(everywhere)).message
    assert (
        in_words(Forbidden("exceeded quota: pods=10")).message == "the API server refuses it: exceeded quota: pods=10"
    )


def test_other_answers_and_none() -> None:
    assert isinstance(in_words(Invalid("spec.x: no")), UserError)
    gone = in_words(Unauthorized("the API server does not take the credentials (401)", "expired; log in anew"))
    assert (gone.exit_code, gone.hint) == (3, "expired; log in anew")
    assert in_words(NoAnswer("get /x: refused")).message == "the API server does not answer: get /x: refused"


def test_a_server_that_is_away_is_told_once_and_borne_for_so_long() -> None:
    now, said = [0.0], []
    patience = Patience(said.append, longest_s=60, clock=lambda: now[0])
    patience.answered("get", POD, 200, 0.1)
    patience.answered("get", POD, 0, 0.1)
    patience.tell()
    assert said == [], "one request that failed is not worth a word"
    now[0] = 5.0
    for _ in range(3):
        patience.answered("get", POD, 503, 0.1)
        patience.tell()
    assert said == ["the API server does not answer: asked again for 1m"]
    assert not patience.is_over
    now[0] = 59.0
    patience.answered("watch", POD, 200, 0.1)
    assert said[1:] == ["the API server answers again, after 59s"]
    patience.answered("get", POD_LOG, 502, 0.1)
    assert not patience.away, "that is the node"
    now[0] = 100.0
    patience.answered("get", POD, 401, 0.1)
    now[0] = 161.0
    assert patience.is_over
