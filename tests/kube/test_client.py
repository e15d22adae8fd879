"""The client against an API server that the test plays: what real ones do only on bad days."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from trainserve.errors import EnvironmentProblem
from trainserve.kube import client, names
from trainserve.kube.client import KubeCluster, connect
from trainserve.kube.cluster import ApiError, Conflict, Invalid, Manifest
from trainserve.kube.names import Kind

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "team", "resourceVersion": "7"}}
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers each request with the next of `answers`, the last one for ever; keeps what was asked."""

    def __init__(self, folder: Path) -> None:
        self.answers: list[web.StreamResponse | Answer] = [ok(POD)]
        self.asked: list[web.Request] = []
        self.kubeconfig = folder / "kubeconfig"
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request) if callable(answer) else copy(answer)

    def tokens(self) -> list[str]:
        return [request.headers.get("Authorization", "") for request in self.asked]

    def write(self, token: str, path: Path | None = None) -> Path:
        path = path or self.kubeconfig
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "here",
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
        return path


def ok(body: Manifest, status: int = 200, **headers: str) -> web.Response:
    return web.json_response(
        body, status=status, headers={key.replace("_", "-"): text for key, text in headers.items()}
    )


def copy(answer: web.StreamResponse) -> web.Response:
    assert isinstance(answer, web.Response)
    return web.Response(body=answer.body, status=answer.status, headers=answer.headers)


def refusal(status: int, reason: str, message: str = "no", **headers: str) -> web.Response:
    return ok({"kind": "Status", "code": status, "reason": reason, "message": message}, status, **headers)


class Playing:
    """What a test gets: the server, and the client with what it was told of."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.slept: list[float] = []
        self.told: list[tuple[str, str, int]] = []

    def told_of(self, verb: str, kind: Kind, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.told.append((verb, kind.plural, status))

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def play(folder: Path, body: Callable[[KubeCluster, Playing], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        server = Server(folder)
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", server.answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        server.write("first")
        playing = Playing(server)
        try:
            async with connect(str(server.kubeconfig), on_request=playing.told_of) as cluster:
                cluster._sleep = playing.sleep
                await body(cluster, playing)
        finally:
            await runner.cleanup()

    asyncio.run(run())


def test_each_request_is_told_of_with_its_verb_kind_and_status(tmp_path: Path) -> None:
    async def body(cluster: KubeCluster, playing: Playing) -> None:
        await cluster.get(names.POD, "team", "a")
        await cluster.create(names.POD, "team", {})
        await cluster.patch(names.POD, "team", "a", {}, subresource="status")
        await cluster.delete(names.POD, "team", "a")
        playing.server.answers = [ok({"items": [POD], "metadata": {"resourceVersion": "9"}})]
        await cluster.list(names.SERVICE, None)
        playing.server.answers = [web.Response(text=json.dumps({"type": "BOOKMARK", "object": POD}) + "\n")]
        assert [event.type async for event in cluster.watch(names.POD, "team", resource_version="7")] == ["BOOKMARK"]
        playing.server.answers = [refusal(409, "Conflict")]
        with pytest.raises(Conflict):
            await cluster.patch(names.POD, "team", "a", {})
        assert playing.told == [
            ("get", "pods", 200),
            ("create", "pods", 200),
            ("patch", "pods", 200),
            ("delete", "pods", 200),
            ("list", "services", 200),
            ("watch", "pods", 200),
            ("patch", "pods", 409),
        ]

    play(tmp_path, body)


def test_no_answer_is_told_of_as_status_0(tmp_path: Path) -> None:
    async def gone(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def body(cluster: KubeCluster, playing: Playing) -> None:
        playing.server.answers = [gone]
        with pytest.raises(ConnectionError):
            await cluster.create(names.POD, "team", {})
        assert playing.told == [("create", "pods", 0)]

    play(tmp_path, body)


def test_a_server_that_does_not_answer_in_time_is_no_empty_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async def body(cluster: KubeCluster, playing: Playing) -> None:
        playing.server.answers = [never]
        with pytest.raises(ConnectionError, match=r"create /api/v1/namespaces/team/pods: \w+"):
            await cluster.create(names.POD, "team", {})

    monkeypatch.setattr(client, "REQUEST_S", 0.1)
    play(tmp_path, body)


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_that_is_put_off_is_sent_once_more(tmp_path: Path, status: int) -> None:
    async def body(cluster: KubeCluster, playing: Playing) -> None:
        playing.server.answers = [refusal(status, "TooManyRequests", Retry_After="3"), ok(POD)]
        assert (await cluster.create(names.POD, "team", {}))["metadata"]["name"] == "a"
        assert playing.slept == [3.0]
        playing.server.answers = [refusal(status, "TooManyRequests", Retry_After="1")]
        with pytest.raises(ApiError) as refused:
            await cluster.create(names.POD, "team", {})
        assert refused.value.status == status
        assert playing.slept == [3.0, 1.0]  # once: what follows is the caller's back-off
        assert len(playing.server.asked) == 4

    play(tmp_path, body)


@pytest.mark.parametrize("header", [None, "600", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "soon", "nan"])
def test_a_wait_that_is_too_long_or_no_number_is_not_waited_for(tmp_path: Path, header: str | None) -> None:
    async def body(cluster: KubeCluster, playing: Playing) -> None:
        headers = {} if header is None else {"Retry_After": header}
        playing.server.answers = [refusal(503, "ServiceUnavailable", **headers)]
        with pytest.raises(ApiError):
            await cluster.get(names.POD, "team", "a")
        assert playing.slept == []
        assert len(playing.server.asked) == 1

    play(tmp_path, body)


def test_credentials_are_read_again_at_a_401_and_the_request_is_sent_again(tmp_path: Path) -> None:
    async def body(cluster: KubeCluster, playing: Playing) -> None:
        playing.server.answers = [refusal(401, "Unauthorized"), ok(POD)]
        playing.server.write("second")
        assert (await cluster.get(names.POD, "team", "a"))["metadata"]["name"] == "a"
        assert playing.server.tokens() == ["Bearer first", "Bearer second"]

    play(tmp_path, body)


def test_credentials_that_are_refused_for_good_are_not_read_at_every_request(tmp_path: Path) -> None:
    async def body(cluster: KubeCluster, playing: Playing) -> None:
        playing.server.answers = [refusal(401, "Unauthorized")]
        for _ in range(3):
            with pytest.raises(ApiError) as refused:
                await cluster.get(names.POD, "team", "a")
            assert refused.value.status == 401
        assert len(playing.server.asked) == 4  # the first twice, the others once
        cluster._may_reload_at = 0.0
        playing.server.kubeconfig.unlink()
        with pytest.raises(ApiError):
            await cluster.get(names.POD, "team", "a")
        assert len(playing.server.asked) == 5

    play(tmp_path, body)


def test_many_requests_that_are_refused_at_once_read_the_credentials_once(tmp_path: Path) -> None:
    async def by_token(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        return ok(POD) if request.headers["Authorization"] == "Bearer second" else refusal(401, "Unauthorized")

    async def body(cluster: KubeCluster, playing: Playing) -> None:
        playing.server.answers = [by_token]
        playing.server.write("second")
        loads = 0
        load = cluster._reload
        assert load is not None

        async def counted() -> Any:
            nonlocal loads
            loads += 1
            return await load()

        cluster._reload = counted
        found = await asyncio.gather(*(cluster.get(names.POD, "team", "a") for _ in range(10)))
        assert found == [POD] * 10
        assert loads == 1

    play(tmp_path, body)


def test_forty_requests_are_under_way_at_the_same_time(tmp_path: Path) -> None:
    async def body(cluster: KubeCluster, playing: Playing) -> None:
        together = asyncio.Barrier(40)

        async def wait(_: web.Request) -> web.StreamResponse:
            await together.wait()  # answers none before all are there
            return ok(POD)

        playing.server.answers = [wait]
        async with asyncio.timeout(10):
            await asyncio.gather(*(cluster.create(names.POD, "team", {}) for _ in range(40)))

    play(tmp_path, body)


def test_a_watch_that_is_silent_for_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine in between that has forgotten the connection says nothing, ever."""

    async def one_line(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write((json.dumps({"type": "MODIFIED", "object": POD}) + "\n").encode())
        await asyncio.sleep(60)
        return response

    async def body(cluster: KubeCluster, playing: Playing) -> None:
        playing.server.answers = [one_line]
        async with asyncio.timeout(10):
            assert [event.type async for event in cluster.watch(names.POD, "team", resource_version="7")] == [
                "MODIFIED"
            ]

    monkeypatch.setattr(client, "WATCH_SILENT_S", 0.2)
    play(tmp_path, body)


def test_what_is_served_is_asked_once_a_minute(tmp_path: Path) -> None:
    async def body(cluster: KubeCluster, playing: Playing) -> None:
        now = [100.0]
        cluster._clock = lambda: now[0]
        playing.server.answers = [ok({"resources": [{"name": "podgroups"}, {"name": "podgroups/status"}]})]
        assert await cluster.serves(names.POD_GROUP)
        assert not await cluster.serves(Kind("scheduling.k8s.io", "v1beta1", "Workload", "workloads"))
        assert [request.path for request in playing.server.asked] == ["/apis/scheduling.k8s.io/v1beta1"]
        playing.server.answers = [refusal(404, "NotFound")]
        assert await cluster.serves(names.POD_GROUP)
        now[0] += client.SERVED_S
        assert not await cluster.serves(names.POD_GROUP)
        playing.server.answers = [ok({"resources": [{"name": "pods"}]})]
        assert await cluster.serves(names.POD)
        assert playing.server.asked[-1].path == "/api/v1"
        now[0] += client.SERVED_S
        playing.server.answers = [refusal(503, "ServiceUnavailable")]
        with pytest.raises(ApiError):  # not known is not "no"
            await cluster.serves(names.POD_GROUP)

    play(tmp_path, body)


def test_a_refusal_does_not_repeat_the_whole_object(tmp_path: Path) -> None:
    secret = "hunter2"
    whole = json.dumps(json.dumps({"env": [{"name": "PASSWORD", "value": secret}], "filler": "x" * 300}))

    async def body(cluster: KubeCluster, playing: Playing) -> None:
        message = f'"" is invalid: patch: Invalid value: {whole}: strict decoding error: unknown field "status.nodes"'
        playing.server.answers = [refusal(422, "Invalid", message)]
        with pytest.raises(Invalid) as refused:
            await cluster.patch(names.PYTORCHJOB, "team", "a", {})
        assert secret not in refused.value.message
        assert refused.value.message.endswith('letters): strict decoding error: unknown field "status.nodes"')
        between = f'PyTorchJob "a" is invalid: {"spec.nothing: Required value, " * 20}one must be named "pytorch"'
        playing.server.answers = [refusal(422, "Invalid", between)]
        with pytest.raises(Invalid) as refused:
            await cluster.patch(names.PYTORCHJOB, "team", "a", {})
        assert refused.value.message == between

    play(tmp_path, body)


def test_the_first_configuration_there_is_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag, then $KUBECONFIG, then the pod's account, then ~/.kube/config."""

    def in_a_pod(configuration: Any) -> None:
        configuration.host = "http://in-a-pod"

    def in_none(configuration: Any) -> None:
        raise client.official_config.ConfigException("Service host/port is not set.")

    async def host(kubeconfig: str | None = None, context: str | None = None) -> str:
        async with connect(kubeconfig, context) as cluster:
            return str(cluster._api.configuration.host).removeprefix("http://")

    server = Server(tmp_path)
    files = {}
    for name in ("flag", "env", "home"):
        server.url = f"http://{name}"
        files[name] = server.write("token", tmp_path / name / ".kube/config")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", str(files["env"]))
    monkeypatch.setattr(client.official_config, "load_incluster_config", in_a_pod)
    assert asyncio.run(host(str(files["flag"]))) == "flag"
    assert asyncio.run(host()) == "env"
    monkeypatch.setenv("KUBECONFIG", "")
    assert asyncio.run(host()) == "in-a-pod"
    assert asyncio.run(host(context="here")) == "home"  # a context is one of a file
    monkeypatch.setattr(client.official_config, "load_incluster_config", in_none)
    assert asyncio.run(host()) == "home"
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    with pytest.raises(EnvironmentProblem, match=r"no Kubernetes cluster is known here: ~/.kube/config"):
        asyncio.run(host())


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "text", "clusters: 3\n", "contexts: []\ncurrent-context: x\n", "\0"]
)
def test_a_damaged_kubeconfig_is_named(tmp_path: Path, content: str) -> None:
    async def load() -> None:
        async with connect(str(path)):
            pass

    path = tmp_path / "damaged"
    path.write_text(content)
    with pytest.raises(EnvironmentProblem) as refused:
        asyncio.run(load())
    assert str(path) in refused.value.message
