"""`Cluster` against a real API server, in raw dicts.

Of the official client only what is about connections is used: kubeconfig, credentials and their renewal, TLS. Its typed
models refuse fields they do not know and cost four times the CPU. Paths, queries and verbs are
those of https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client as official
from kubernetes.aio import config as official_config

from trainserve.errors import EnvironmentProblem
from trainserve.kube.cluster import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    Manifest,
    NotFound,
    Page,
    WatchEvent,
)
from trainserve.kube.names import Kind

REQUEST_S = 60.0  # longest wait for an answer that is no watch
CONNECT_S = 10.0
WATCH_GRACE_S = 30.0  # a server ends a watch by itself; one that is silent for longer than this after it is away
_ERRORS: dict[str, type[ApiError]] = {
    error.reason: error for error in (BadRequest, Forbidden, NotFound, AlreadyExists, Conflict, Gone, Invalid)
}
_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
}
_WATCHED = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")


class KubeCluster:
    """An API server. Use `connect`. Raises ApiError's kinds for its answers, ConnectionError when there is none.

    A namespace of None: the kind has none.
    """

    def __init__(self, api: official.ApiClient) -> None:
        self._api = api

    async def serves(self, kind: Kind) -> bool:
        """By discovery of the kind's group and version."""
        try:
            found = await self._ask("GET", _path(kind, None).rpartition("/")[0])
        except NotFound:
            return False
        return any(resource["name"] == kind.plural for resource in found["resources"])

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest:
        return await self._ask("GET", _path(kind, namespace, name))

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
        query = _selectors(labels, fields)
        if limit is not None:
            query["limit"] = str(limit)
        if continue_token:
            query["continue"] = continue_token
        found = await self._ask("GET", _path(kind, namespace), query)
        for item in found["items"] or []:  # a list says once what its items are
            item.setdefault("apiVersion", kind.api_version)
            item.setdefault("kind", kind.kind)
        metadata = found["metadata"]
        return Page(found["items"] or [], metadata["resourceVersion"], metadata.get("continue", ""))

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        resource_version: str,
        timeout_s: float = 300.0,
    ) -> AsyncIterator[WatchEvent]:
        query = {
            **_selectors(labels, fields),
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(timeout_s))),
        }
        # Between two lines there may be silence, but not for longer than the watch itself may last.
        timeout = aiohttp.ClientTimeout(total=timeout_s + WATCH_GRACE_S, sock_connect=CONNECT_S)
        response = await self._send("GET", _path(kind, namespace), query, None, timeout)
        try:
            if response.status != 200:
                raise _error(response.status, await response.read())
            async for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error(event["object"].get("code", 500), event["object"])
                if event["type"] in _WATCHED:
                    yield WatchEvent(event["type"], event["object"])
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(f"the watch of {kind.plural} broke off: {error or type(error).__name__}") from error
        finally:
            response.close()

    async def create(self, kind: Kind, namespace: str | None, manifest: Manifest) -> Manifest:
        return await self._ask("POST", _path(kind, namespace), {"fieldValidation": "Strict"}, manifest)

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Manifest,
        *,
        subresource: Literal["", "status"] = "",
    ) -> Manifest:
        path = _path(kind, namespace, name, subresource)
        return await self._ask("PATCH", path, {"fieldValidation": "Strict"}, patch)

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace_period_s: int | None = None,
    ) -> None:
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        await self._ask("DELETE", _path(kind, namespace, name), None, options)

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Manifest | None = None
    ) -> Manifest:
        timeout = aiohttp.ClientTimeout(total=REQUEST_S, sock_connect=CONNECT_S)
        response = await self._send(method, path, query or {}, body, timeout)
        try:
            data = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(f"{method} {path}: {error or type(error).__name__}") from error
        if response.status >= 300:
            raise _error(response.status, data)
        answer: Manifest = json.loads(data)
        return answer

    async def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Manifest | None, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json", "User-Agent": "trainserve"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        queries = list(query.items())
        await self._api.update_params_for_auth(headers, queries, ["BearerToken"], path, method, body)
        url = f"{self._api.configuration.host}{path}" + (f"?{urlencode(queries)}" if queries else "")
        try:
            sent = await self._api.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(f"{method} {path}: {error or type(error).__name__}") from error
        response: aiohttp.ClientResponse = sent.response
        return response


@asynccontextmanager
async def connect(kubeconfig: str | None = None, context: str | None = None) -> AsyncIterator[KubeCluster]:
    """A connected client: by `kubeconfig` ($KUBECONFIG or ~/.kube/config unless given), in a pod by its account.

    Raises EnvironmentProblem where there is neither.
    """
    configuration = official.Configuration()
    try:
        await _load(configuration, kubeconfig, context)
    except (official_config.ConfigException, OSError) as error:
        raise EnvironmentProblem(
            f"no Kubernetes cluster is known here: {error}", hint="set KUBECONFIG to the path of a kubeconfig"
        ) from error
    api = official.ApiClient(configuration)
    try:
        yield KubeCluster(api)
    finally:
        await api.close()  # type: ignore[no-untyped-call]


async def _load(configuration: official.Configuration, kubeconfig: str | None, context: str | None) -> None:
    if kubeconfig is None and context is None:
        try:
            official_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        except official_config.ConfigException:
            pass  # not in a pod
        else:
            return
    await official_config.load_kube_config(  # type: ignore[no-untyped-call]
        kubeconfig, context=context, client_configuration=configuration, persist_config=False
    )


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Whole lines, of any length: an object may have more bytes than a stream reader's limit for a line."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


def _path(kind: Kind, namespace: str | None, name: str = "", subresource: str = "") -> str:
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    parts = ["namespaces", namespace] if namespace is not None else []
    parts += [part for part in (kind.plural, name, subresource) if part]
    return "/".join([root, *(quote(part, safe="") for part in parts)])


def _selectors(labels: Mapping[str, str] | None, fields: Mapping[str, str] | None) -> dict[str, str]:
    selected = {"labelSelector": labels, "fieldSelector": fields}
    return {name: ",".join(f"{key}={value}" for key, value in by.items()) for name, by in selected.items() if by}


def _error(status: int, body: bytes | Mapping[str, Any]) -> ApiError:
    """What the server's Status object says; a proxy's page in between is told as it is."""
    found: Any = body
    if isinstance(body, bytes):
        try:
            found = json.loads(body)
        except ValueError:
            found = {"message": body[:200].decode("utf-8", "replace").strip() or f"HTTP status {status}"}
    reason, message = found.get("reason") or "", found.get("message") or f"HTTP status {status}"
    kind = _ERRORS.get(reason) or _BY_STATUS.get(status, ApiError)
    return kind(message, status=status, reason=reason or None)
