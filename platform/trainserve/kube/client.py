"""`Cluster` against a real API server, in raw dicts.

Of the official client only what is about connections is used: kubeconfig, credentials and their renewal, TLS. Its typed
models refuse fields they do not know and cost four times the CPU. Paths, queries and verbs are
those of https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias
from urllib.parse import quote, urlencode
from urllib.request import getproxies

import aiohttp
import yaml
from kubernetes.aio import client as official
from kubernetes.aio import config as official_config

from trainserve.errors import EnvironmentProblem
from trainserve.kube import kubeconfigfiles
from trainserve.kube.answers import answered, lines, no_answer, put_off_s, refusal, watched
from trainserve.kube.cluster import ApiError, Manifest, NotFound, Page, WatchEvent
from trainserve.kube.exec import HEARTBEAT_S, PROTOCOLS, Exec
from trainserve.kube.kubeconfig import check, check_token, no_credentials
from trainserve.kube.names import ACCOUNT_FOLDER, POD, POD_LOG, Kind
from trainserve.kube.outage import NoAnswer, Origin, Outage, Unauthorized
from trainserve.kube.requestpaths import request_path, root, selectors

log = logging.getLogger(__name__)

RequestHook: TypeAlias = Callable[[str, Kind, int, float], None]

REQUEST_S = 60.0  # longest wait for an answer that is no watch
CONNECT_S = 10.0
CONNECTIONS = 512  # at a time; a watch holds one for as long as it lasts
PUT_OFF_S = 10.0  # a longer Retry-After is for the caller's own back-off
RELOAD_EVERY_S = 10.0  # credentials are read again at most so often
RETIRED_S = 600.0  # longer than any watch lasts
SERVED_S = 60.0  # what discovery said holds for so long
WATCH_SILENT_S = 150.0  # a server sends a bookmark about every minute
WATCH_GRACE_S = 30.0  # a server ends a watch by itself; one that is silent for longer than this after it is away
_METHODS = {"get": "GET", "list": "GET", "watch": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}
# What the official client raises for a kubeconfig that is missing, no YAML, of another shape, or has damaged keys.
_UNREADABLE = (
    official_config.ConfigException,
    OSError,
    yaml.YAMLError,
    TypeError,
    AttributeError,
    LookupError,
    ValueError,
)
_OF_POD = Origin(
    "the pod's KUBERNETES_SERVICE_HOST", f"{ACCOUNT_FOLDER}/ca.crt", f"the service account's, in {ACCOUNT_FOLDER}/token"
)
_WATCHED = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")


class KubeCluster:
    """An API server. Use `connect`. Raises ApiError's kinds for its answers, `kube.outage.NoAnswer` when there is none.

    A namespace of None: the kind has none. A request that the server puts off (429 or 503 with a Retry-After of at most
    `PUT_OFF_S`) is sent once more after that time. At a 401 the credentials are read again, once, and it is sent again.
    `on_request` is told of each request: the verb as in RBAC, the kind, the HTTP status (0: no answer), the seconds
    until the answer began.
    """

    def __init__(
        self,
        api: official.ApiClient,
        origin: Origin,
        *,
        reload: Callable[[], Awaitable[tuple[official.ApiClient, Origin]]] | None = None,
        on_request: RequestHook | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._origin = origin
        self._outage = Outage()
        self._reload = reload
        self._reloading = asyncio.Lock()
        self._retired: list[tuple[float, official.ApiClient]] = []  # until when answers may still come there
        self._may_reload_at = 0.0
        self._on_request = on_request
        self._sleep = sleep
        self._clock = clock
        self._served: dict[str, tuple[float, frozenset[str]]] = {}  # group and version -> until when known, plurals

    def tell_outages(self) -> None:
        """Log it once when the server does not answer, or takes the credentials no more, and once when it does again.

        For who goes on asking: it logs nothing of that itself (`kube.outage.level`).
        """
        self._outage.loud = True

    async def close(self) -> None:
        for api in (self._api, *(retired for _, retired in self._retired)):
            await api.close()  # type: ignore[no-untyped-call]

    async def serves(self, kind: Kind) -> bool:
        """By discovery; what it said is kept for `SERVED_S`."""
        until, plurals = self._served.get(kind.api_version, (0.0, frozenset()))
        if self._clock() >= until:
            try:
                found = await self._ask("get", kind, root(kind))
            except NotFound:  # the whole group, or this version of it
                found = {"resources": []}
            plurals = frozenset(resource["name"] for resource in found["resources"])
            self._served[kind.api_version] = (self._clock() + SERVED_S, plurals)
        return kind.plural in plurals

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest:
        return await self._ask("get", kind, request_path(kind, namespace, name))

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
        query = selectors(labels, fields)
        if limit is not None:
            query["limit"] = str(limit)
        if continue_token:
            query["continue"] = continue_token
        found = await self._ask("list", kind, request_path(kind, namespace), query)
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
            **selectors(labels, fields),
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(timeout_s))),
        }
        timeout = aiohttp.ClientTimeout(
            total=timeout_s + WATCH_GRACE_S, sock_connect=CONNECT_S, sock_read=min(WATCH_SILENT_S, timeout_s)
        )
        began = self._clock()
        response = await self._send("watch", kind, request_path(kind, namespace), query, None, timeout)
        try:
            if response.status != 200:
                raise self._refused(began, response.status, await response.read())
            self._outage.answered(self._clock())
            async for line in lines(response):
                event = watched(line, self._origin)
                if event["type"] == "ERROR":
                    raise refusal(event["object"].get("code", 500), event["object"], self._origin)
                if event["type"] in _WATCHED:
                    yield WatchEvent(event["type"], event["object"])
        except aiohttp.SocketTimeoutError:
            return  # nothing has happened, or the way to the server is dead: a new watch finds out
        except (aiohttp.ClientError, TimeoutError) as error:
            # Whether that is an outage is seen, and told, by the next request.
            raise no_answer(f"the watch of {kind.plural} broke off", error, self._origin) from error
        finally:
            response.close()

    async def create(self, kind: Kind, namespace: str | None, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """With `dry_run` the server says what it would store, and stores nothing."""
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return await self._ask("create", kind, request_path(kind, namespace), query, manifest)

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Manifest,
        *,
        subresource: Literal["", "status"] = "",
        dry_run: bool = False,
    ) -> Manifest:
        """With `dry_run` the server says what it would store, and stores nothing."""
        path = request_path(kind, namespace, name, subresource)
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return await self._ask("patch", kind, path, query, patch)

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace_period_s: int | None = None,
        propagation: Literal["Background", "Foreground"] = "Background",
    ) -> None:
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        await self._ask("delete", kind, request_path(kind, namespace, name), None, options)

    async def read_pod(self, namespace: str, name: str, port: int, path: str, *, limit: int, timeout_s: float) -> bytes:
        """What a port of a pod answers to GET, through the API server. Raises OSError, ValueError.

        The answer is a stranger's: at most `limit` bytes, taken as they are; its redirects, cookies and wishes to wait
        are not followed.
        """
        rest = self._api.rest_client
        if rest.pool_manager is None:
            raise ConnectionError("there is no connection to the API server yet")
        where = f"{request_path(POD, namespace)}/{quote(f'{name}:{port}', safe=':')}/proxy{path}"
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "trainserve"}
        queries: list[tuple[str, str]] = []
        began, status = self._clock(), 0
        try:
            await self._api.update_params_for_auth(headers, queries, ["BearerToken"], where, "GET", None)
            async with (
                aiohttp.ClientSession(
                    connector=rest.pool_manager.connector,
                    connector_owner=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    trust_env=True,
                    timeout=aiohttp.ClientTimeout(total=timeout_s),
                ) as session,
                session.get(
                    f"{self._api.configuration.host}{where}",
                    headers=headers,
                    allow_redirects=False,
                    proxy=rest.proxy,
                    proxy_headers=rest.proxy_headers,
                    server_hostname=self._api.configuration.tls_server_name,
                ) as response,
            ):
                status = response.status
                answer = b""
                while len(answer) <= limit and (piece := await response.content.read(limit + 1 - len(answer))):
                    answer += piece
        except (aiohttp.ClientError, TimeoutError, official_config.ConfigException) as error:
            raise no_answer(f"GET {where}", error, self._origin) from error
        finally:
            if self._on_request is not None:
                self._on_request("get", POD, status, self._clock() - began)
        if status != 200:
            raise ValueError(f"HTTP status {status}: {answer[:200]!r}")
        if len(answer) > limit:
            raise ValueError(f"its answer has more than {limit} bytes")
        return answer

    @asynccontextmanager
    async def exec(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> AsyncIterator[Exec]:
        """stdin, stdout and stderr of a command in a container, for the length of a block.

        Some request must have been answered before. Raises ApiError where the server says no, NoAnswer.
        """
        rest = self._api.rest_client
        if rest.pool_manager is None:
            raise ConnectionError("there is no connection to the API server yet")
        words = [("stdin", "1"), ("stdout", "1"), ("stderr", "1"), ("container", container)]
        query = urlencode([*words, *(("command", word) for word in command)])
        where = request_path(POD, namespace, pod, "exec")
        headers = {"User-Agent": "trainserve"}
        began, status = self._clock(), 0
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], where, "GET", None)
            async with (
                aiohttp.ClientSession(
                    connector=rest.pool_manager.connector,
                    connector_owner=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    trust_env=True,
                ) as session,
                session.ws_connect(
                    f"{self._api.configuration.host}{where}?{query}",
                    headers=headers,
                    protocols=PROTOCOLS,
                    heartbeat=HEARTBEAT_S,
                    max_msg_size=0,
                    proxy=rest.proxy,
                    proxy_headers=rest.proxy_headers,
                    server_hostname=self._api.configuration.tls_server_name,
                ) as socket,
            ):
                status = 101
                yield Exec(socket)
        except aiohttp.WSServerHandshakeError as error:
            status = error.status
            raise refusal(error.status, (error.message or "").encode(), self._origin) from error
        except (aiohttp.ClientError, TimeoutError, official_config.ConfigException) as error:
            raise no_answer(f"exec in pod {pod}", error, self._origin) from error
        finally:
            if self._on_request is not None:
                self._on_request("create", POD, status, self._clock() - began)

    async def read_log(self, namespace: str, pod: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """A container's log in pieces of any length. `query`: container, follow, previous, sinceTime, tailLines, ...

        Ends with the log; raises NoAnswer where the way to the node breaks off, also after a long silence: with a
        sinceTime the caller goes on.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=WATCH_SILENT_S)
        began = self._clock()
        path = request_path(POD, namespace, pod, "log")
        response = await self._send("get", POD_LOG, path, query, None, timeout)
        try:
            if response.status != 200:
                raise self._refused(began, response.status, await response.read())
            async for piece in response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise no_answer(f"the log of pod {pod} broke off", error, self._origin) from error
        finally:
            response.close()

    async def _ask(
        self, verb: str, kind: Kind, path: str, query: Mapping[str, str] | None = None, body: Manifest | None = None
    ) -> Manifest:
        timeout = aiohttp.ClientTimeout(total=REQUEST_S, sock_connect=CONNECT_S)
        began = self._clock()
        response = await self._send(verb, kind, path, query or {}, body, timeout)
        try:
            data = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._absent(f"{verb} {path}", error, began) from error
        answer = answered(verb, data) if response.status < 300 else None
        if answer is None:
            raise self._refused(began, response.status, data)
        self._outage.answered(self._clock())
        return answer

    async def _send(
        self,
        verb: str,
        kind: Kind,
        path: str,
        query: Mapping[str, str],
        body: Manifest | None,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        put_off = renewed = False
        while True:
            api = self._api
            response = await self._once(api, verb, kind, path, query, body, timeout)
            delay_s = put_off_s(response, PUT_OFF_S)
            if response.status == 401 and not renewed and await self._renew(api):
                renewed = True
                response.release()
            elif delay_s is not None and not put_off:
                put_off = True
                response.release()
                log.info("%s %s: the API server asks to wait for %.0f s", verb, path, delay_s)
                await self._sleep(delay_s)
            else:
                return response

    async def _once(
        self,
        api: official.ApiClient,
        verb: str,
        kind: Kind,
        path: str,
        query: Mapping[str, str],
        body: Manifest | None,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        method = _METHODS[verb]
        headers = {"Accept": "application/json", "User-Agent": "trainserve"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        queries = list(query.items())
        began, status = self._clock(), 0
        try:
            await api.update_params_for_auth(headers, queries, ["BearerToken"], path, method, body)
            url = f"{api.configuration.host}{path}" + (f"?{urlencode(queries)}" if queries else "")
            sent = await api.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
            response: aiohttp.ClientResponse = sent.response
            status = response.status
        except (aiohttp.ClientError, TimeoutError, official_config.ConfigException) as error:
            raise self._absent(f"{verb} {path}", error, began) from error
        finally:
            if self._on_request is not None:
                self._on_request(verb, kind, status, self._clock() - began)
        return response

    def _absent(self, asked: str, error: Exception, began: float) -> NoAnswer:
        found = no_answer(asked, error, self._origin)
        self._outage.failed(found, began, self._clock())
        return found

    def _refused(self, began: float, status: int, body: bytes) -> ApiError | NoAnswer:
        """A server that says no is there, unless it takes nothing from us at all."""
        found = refusal(status, body, self._origin)
        if isinstance(found, (NoAnswer, Unauthorized)):
            self._outage.failed(found, began, self._clock())
        else:
            self._outage.answered(self._clock())
        return found

    async def _renew(self, refused: official.ApiClient) -> bool:
        """Read the credentials again, unless that was done just now; returns whether there are others than refused."""
        async with self._reloading:
            if self._api is not refused:
                return True  # another request has done it meanwhile
            if self._reload is None or self._clock() < self._may_reload_at:
                return False
            self._may_reload_at = self._clock() + RELOAD_EVERY_S
            try:
                renewed, self._origin = await self._reload()
            except EnvironmentProblem as error:
                log.warning("the API server refuses our credentials, and they cannot be read again: %s", error.message)
                return False
            log.info("the API server refuses our credentials: read again")
            self._api = renewed
            self._retired.append((self._clock() + RETIRED_S, refused))
            while self._retired[0][0] <= self._clock():
                await self._retired.pop(0)[1].close()  # type: ignore[no-untyped-call]
            return True


@asynccontextmanager
async def connect(
    kubeconfig: str | None = None, context: str | None = None, *, on_request: RequestHook | None = None
) -> AsyncIterator[KubeCluster]:
    """A connected client, by the first of these that there is:

    `kubeconfig`, the files that $KUBECONFIG names, the account of the pod we run in (unless a `context` is given),
    ~/.kube/config. Raises EnvironmentProblem where there is none, or it cannot be read.
    """

    async def load() -> tuple[official.ApiClient, Origin]:
        configuration = official.Configuration(connection_pool_maxsize=CONNECTIONS)
        configuration.client_session_kwargs = {"trust_env": _behind_proxy()}
        try:
            origin = await _load(configuration, kubeconfig, context)
            check_token(str((configuration.api_key or {}).get("BearerToken") or ""))
            return official.ApiClient(configuration), origin
        except _UNREADABLE as error:
            source = kubeconfigfiles.named(kubeconfig) or kubeconfigfiles.DEFAULT_PATH
            raise EnvironmentProblem(
                f"no Kubernetes cluster is known here: {source}: {str(error).strip() or type(error).__name__}",
                hint="set KUBECONFIG to the path of a kubeconfig",
            ) from error

    cluster = KubeCluster(*await load(), reload=load, on_request=on_request)
    try:
        yield cluster
    finally:
        await cluster.close()


async def _load(configuration: official.Configuration, kubeconfig: str | None, context: str | None) -> Origin:
    path = kubeconfigfiles.named(kubeconfig)
    if not path and context is None:
        try:
            official_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        except official_config.ConfigException:
            pass  # not in a pod
        else:
            return _OF_POD
    chosen = check(kubeconfigfiles.contents(path or kubeconfigfiles.DEFAULT_PATH), context)
    await official_config.load_kube_config_from_dict(  # type: ignore[no-untyped-call]
        {
            "clusters": [{"name": "it", "cluster": chosen.cluster}],
            "users": [{"name": "it", "user": chosen.user}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "current-context": "it",
        },
        client_configuration=configuration,
    )
    if chosen.user.get("exec") and not (configuration.api_key or {}).get("BearerToken") and not configuration.cert_file:
        raise no_credentials(chosen.user)
    return Origin(chosen.server, chosen.authority, chosen.credentials)


def _behind_proxy() -> bool:
    """Whether the environment names a proxy. Else nothing is looked for at each request, which costs two hops to a
    thread; and ~/.netrc, which aiohttp would read there, has no say in what a kubeconfig is for.
    """
    return not {"http", "https", "all"}.isdisjoint(getproxies())
