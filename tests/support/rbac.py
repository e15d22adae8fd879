"""A server that lets a controller do what `kube.rbac` grants it, and writes down what it did."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainserve.kube import names, rbac
from trainserve.kube.cluster import Cluster, Manifest
from trainserve.kube.names import Kind

Call = tuple[str, str, str]  # verb, "plural.group", subresource

EVERYTHING = (*rbac.JOBS, *rbac.OWN, *rbac.CLUSTER)
METHODS = ("create", "delete", "get", "list", "patch", "watch")


def granted(grants: Iterable[rbac.Grant] = EVERYTHING) -> set[Call]:
    return {(verb, _resource(grant.kind), grant.subresource) for grant in grants for verb in grant.verbs}


class UnderItsRole:
    """`cluster`, for the calls of the table only. Any other is a mistake, in the table or in the controller.

    Every scenario of the tests runs behind this; `calls` is what was called.
    """

    def __init__(self, cluster: Cluster, calls: set[Call] | None = None) -> None:
        self._cluster = cluster
        self._granted = granted()
        self.calls: set[Call] = set() if calls is None else calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)
        if name not in METHODS:
            return method

        def call(kind: Kind, namespace: str | None, *args: Any, **options: Any) -> Any:
            self._check(name, kind, options.get("subresource", ""))
            if name == "create" and _blocks_owner(args[0]):
                self._check("update", names.PYTORCHJOB, "finalizers")  # what admission asks for
            return method(kind, namespace, *args, **options)

        return call

    def _check(self, verb: str, kind: Kind, subresource: str) -> None:
        call = (verb, _resource(kind), subresource)
        assert call in self._granted, f"{call} is not in the table of kube/rbac.py: add it, with a why"
        self.calls.add(call)


def _resource(kind: Kind) -> str:
    return f"{kind.plural}.{kind.group}"


def _blocks_owner(manifest: Manifest) -> bool:
    owners = manifest["metadata"].get("ownerReferences") or []
    return any(owner.get("blockOwnerDeletion") for owner in owners)
