"""What the controller may do at an API server: a table of the calls that it makes, and the roles that follow from it.

Pure. Tests let the controller work under exactly this table, and say that nothing in it is unused.
Roles: https://kubernetes.io/docs/reference/access-authn-authz/rbac/.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.crd import CRD_NAME
from trainserve.kube.names import Kind


@dataclass(frozen=True)
class Grant:
    """Verbs on one kind, or on a subresource of it; `only`: on objects of these names. `why` is for who reviews it."""

    kind: Kind
    verbs: tuple[str, ...]
    why: str
    subresource: str = ""
    only: tuple[str, ...] = ()

    @property
    def resource(self) -> str:
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural

    def rule(self) -> Manifest:
        rule: Manifest = {"apiGroups": [self.kind.group], "resources": [self.resource], "verbs": list(self.verbs)}
        return {**rule, "resourceNames": list(self.only)} if self.only else rule


_CHILD = ("create", "delete", "get", "list", "patch", "watch")

# In every namespace whose jobs are worked on.
JOBS = (
    Grant(names.PYTORCHJOB, ("delete", "list", "watch"), "follow jobs; delete them after ttlSecondsAfterFinished"),
    Grant(names.PYTORCHJOB, ("patch",), "write what was observed", "status"),
    Grant(
        names.PYTORCHJOB,
        ("update",),
        "own pods and services with blockOwnerDeletion, where the server asks for it",
        "finalizers",
    ),
    Grant(
        names.POD,
        _CHILD,
        "run the replicas; get: whose is a pod that has the name already; patch: stop a pod whose log is to stay",
    ),
    Grant(names.SERVICE, ("create", "delete", "get", "list", "watch"), "give every replica its name"),
    Grant(names.EVENT, ("create", "get", "patch"), "tell what happened; count what happened again"),
    Grant(names.POD_GROUP, _CHILD, "gang scheduling by Kubernetes itself, where it is served"),
    Grant(names.VOLCANO_POD_GROUP, _CHILD, "gang scheduling by Volcano, where it is installed"),
    Grant(names.SCHEDULER_PLUGINS_POD_GROUP, _CHILD, "gang scheduling by scheduler-plugins, where it is installed"),
    Grant(names.AUTOSCALER, _CHILD, "elasticPolicy.metrics: scale Workers by load"),
)

# In the namespace that the controller itself runs in.
OWN = (
    Grant(names.LEASE, ("create",), "elect one controller of several"),
    Grant(names.LEASE, ("get", "patch"), "take, renew and release the election", only=(names.OPERATOR_LEASE,)),
)

# What has no namespace, or is looked for in all. A controller of some namespaces does without.
CLUSTER = (
    Grant(names.NODE, ("list",), "say how much of a resource is free where a gang does not fit"),
    Grant(names.CRD, ("get",), "see whose the kind is, and of which version", only=(CRD_NAME,)),
    Grant(names.DEPLOYMENT, ("list",), "see whether Kubeflow's operator is there", only=(names.KUBEFLOW_DEPLOYMENT,)),
    Grant(names.LEASE, ("list",), "see whether Kubeflow's operator works", only=(names.KUBEFLOW_LEASE,)),
)

# For `--progress proxy` only: it opens every port of every pod there, so it is installed by who wants it.
PROGRESS_PROXY = (Grant(names.POD, ("get",), "read a pod's progress through the API server", "proxy"),)

# What people get by Kubernetes' own roles view, edit and admin, wherever those are bound.
_READ = ("get", "list", "watch")
VIEW = (
    Grant(names.PYTORCHJOB, _READ, "see jobs"),
    Grant(names.PYTORCHJOB, ("get",), "see how far they are", "status"),
    Grant(names.PYTORCHJOB, ("get",), "see their size", "scale"),
)
EDIT = (
    Grant(names.PYTORCHJOB, ("create", "delete", "deletecollection", "patch", "update"), "start, change, stop jobs"),
    Grant(names.PYTORCHJOB, ("patch", "update"), "change their size", "scale"),
)
PEOPLE = {"view": VIEW, "edit": EDIT}


def manifests(
    operator_namespace: str = names.OPERATOR_NAMESPACE, job_namespaces: Sequence[str] | None = None
) -> list[Manifest]:
    """Everything that a controller in `operator_namespace` needs, but the namespaces themselves.

    `job_namespaces` None: it works in all, by a ClusterRole. Else by a Role in each of these, and with nothing that
    belongs to the whole cluster but the roles of people, which give nothing by themselves.
    """
    account = [service_account(operator_namespace), *_bound("Role", OWN, operator_namespace, operator_namespace)]
    if job_namespaces is None:
        return [*account, *_bound("ClusterRole", (*JOBS, *CLUSTER), operator_namespace), *people()]
    of_jobs = [each for name in job_namespaces for each in _bound("Role", JOBS, operator_namespace, name, "-jobs")]
    return [*account, *of_jobs, *people()]


def namespace(name: str = names.OPERATOR_NAMESPACE) -> Manifest:
    """The namespace that the controller is installed in: nothing that is privileged runs there."""
    manifest = _object(names.NAMESPACE, name, None)
    manifest["metadata"]["labels"][names.LABEL_POD_SECURITY] = names.POD_SECURITY
    return manifest


def service_account(namespace: str) -> Manifest:
    return _object(names.SERVICE_ACCOUNT, names.OPERATOR_ACCOUNT, namespace)


def progress_proxy(operator_namespace: str = names.OPERATOR_NAMESPACE) -> list[Manifest]:
    """What `--progress proxy` needs beside `manifests`, in all namespaces."""
    return _bound("ClusterRole", PROGRESS_PROXY, operator_namespace, suffix="-progress-proxy")


def people() -> list[Manifest]:
    """ClusterRoles that Kubernetes adds to its own: edit and admin see what view sees."""
    wider = {"view": ("view", "edit", "admin"), "edit": ("edit", "admin")}
    found = []
    for role, grants in PEOPLE.items():
        manifest = _object(names.CLUSTER_ROLE, f"{names.PART_OF}-{role}", None)
        manifest["metadata"]["labels"] |= {names.LABEL_AGGREGATE_TO.format(role=each): "true" for each in wider[role]}
        found.append({**manifest, "rules": _rules(grants)})
    return found


def _bound(
    kind: str, grants: Iterable[Grant], account_namespace: str, namespace: str | None = None, suffix: str = ""
) -> list[Manifest]:
    """A role with these grants, and its binding to the controller's account."""
    role, binding = {
        "Role": (names.ROLE, names.ROLE_BINDING),
        "ClusterRole": (names.CLUSTER_ROLE, names.CLUSTER_ROLE_BINDING),
    }[kind]
    name = f"{names.OPERATOR_ACCOUNT}{suffix}"
    subject = {"kind": names.SERVICE_ACCOUNT.kind, "name": names.OPERATOR_ACCOUNT, "namespace": account_namespace}
    return [
        {**_object(role, name, namespace), "rules": _rules(grants)},
        {
            **_object(binding, name, namespace),
            "roleRef": {"apiGroup": role.group, "kind": role.kind, "name": name},
            "subjects": [subject],
        },
    ]


def _rules(grants: Iterable[Grant]) -> list[Manifest]:
    return [grant.rule() for grant in grants]


def _object(kind: Kind, name: str, namespace: str | None) -> Manifest:
    labels = {names.LABEL_NAME: names.OPERATOR_ACCOUNT, names.LABEL_PART_OF: names.PART_OF}
    metadata: Manifest = {"name": name, "labels": labels}
    if namespace is not None:
        metadata["namespace"] = namespace
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
