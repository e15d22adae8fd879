"""What a controller needs of an API server: the one protocol that `local.server` and `kube.client` implement.

Objects are raw dicts, exactly as in the Kubernetes REST API (API conventions,
https://kubernetes.io/docs/reference/using-api/api-concepts/). One conformance suite runs on every implementation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from trainserve.kube.names import Kind

Manifest: TypeAlias = dict[str, Any]  # one Kubernetes object


class ApiError(Exception):
    """The API server said no. `status` is the HTTP status, `reason` its machine word, `message` its sentence."""

    status: int = 500
    reason: str = "InternalError"

    def __init__(self, message: str, *, status: int | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status
        if reason is not None:
            self.reason = reason


class BadRequest(ApiError):
    """400: the body is no such object; strict field validation names the unknown field's path."""

    status, reason = 400, "BadRequest"


class Forbidden(ApiError):
    """403: RBAC, quota or admission."""

    status, reason = 403, "Forbidden"


class NotFound(ApiError):
    """404: no such object (or no such kind)."""

    status, reason = 404, "NotFound"


class AlreadyExists(ApiError):
    """409 on create."""

    status, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    """409 on patch or delete: the resourceVersion or uid precondition does not hold; read again and retry."""

    status, reason = 409, "Conflict"


class Gone(ApiError):
    """410: the resourceVersion to watch from is compacted away; list again."""

    status, reason = 410, "Expired"


class Invalid(ApiError):
    """422: a field's value is not allowed; the message names the path."""

    status, reason = 422, "Invalid"


@dataclass(frozen=True)
class Page:
    """One page of a list. `resource_version` is where a watch goes on; `continue_token` is "" on the last page."""

    items: list[Manifest]
    resource_version: str
    continue_token: str = ""


@dataclass(frozen=True)
class WatchEvent:
    """One change. A BOOKMARK's object carries only `metadata.resourceVersion`."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Manifest


class Cluster(Protocol):
    """An API server. All methods raise ApiError's subclasses and return deep copies that the caller may change."""

    async def serves(self, kind: Kind) -> bool:
        """Whether the server has this very version of the kind, by discovery: servers differ in what is switched on."""
        ...

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest:
        """A namespace of None: the kind has none."""
        ...

    async def list(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        limit: int | None = None,
        continue_token: str = "",
    ) -> Page:
        """Objects in `namespace` (None: all) that have all of `labels` and `fields`; at most `limit` a page.

        A field is a path that the server selects by, such as `spec.nodeName` of a pod; another is a BadRequest.
        """
        ...

    def watch(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        resource_version: str,
        timeout_s: float = 300.0,
    ) -> AsyncIterator[WatchEvent]:
        """Changes after `resource_version`; ends by itself after `timeout_s`; raises Gone when that is too old."""
        ...

    async def create(self, kind: Kind, namespace: str, manifest: Manifest) -> Manifest:
        """Strict: an unknown field is a BadRequest. `status` in the manifest is ignored where it is a subresource."""
        ...

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Manifest,
        *,
        subresource: Literal["", "status"] = "",
    ) -> Manifest:
        """JSON merge patch (RFC 7396). With `metadata.resourceVersion` in `patch` a stale one is a Conflict."""
        ...

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        grace_period_s: int | None = None,
    ) -> None:
        """Background propagation. A running pod first gets a deletionTimestamp and goes when its kubelet says so."""
        ...
