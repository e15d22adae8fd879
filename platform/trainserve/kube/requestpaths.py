"""Paths and queries of an API server's requests. Pure.

https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from trainserve.kube.names import Kind


def root(kind: Kind) -> str:
    """Of the kind's group and version: what discovery answers at."""
    return f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"


def request_path(kind: Kind, namespace: str | None, name: str = "", subresource: str = "") -> str:
    """Of all objects of a kind, or of one. A namespace of None: the kind has none, or all are meant."""
    parts = ["namespaces", namespace] if namespace is not None else []
    parts += [part for part in (kind.plural, name, subresource) if part]
    return "/".join([root(kind), *(quote(part, safe="") for part in parts)])


def selectors(labels: Mapping[str, str] | None, fields: Mapping[str, str] | None) -> dict[str, str]:
    """The query that selects by equality."""
    selected = {"labelSelector": labels, "fieldSelector": fields}
    return {name: ",".join(f"{key}={value}" for key, value in by.items()) for name, by in selected.items() if by}
