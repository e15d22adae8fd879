"""Tests against a real API server, with simulated nodes and the real command: `make test-cluster`.

They share one server (support/testserver.py), each in a namespace of its own. They are collected only where pytest is
given this folder or something in it, so `make test` needs neither Go nor a cluster.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support import testserver
from support.coroutines import pytest_pyfunc_call  # noqa: F401 - pytest finds it here
from support.kubectl import Kubectl
from support.kwok import add_nodes
from support.operating import Operator, operating
from support.real import Team, connected
from support.testserver import OwnServer, Server
from trainserve.errors import EnvironmentProblem
from trainserve.kube.client import KubeCluster

HERE = Path(__file__).parent
OWN = {"own_server", "server_without_gangs"}
LONG = (
    "seldom",
    "ends_by_itself_with_a_bookmark",
    "away_for_a_minute",
    "test_leader",
    "test_drain",
    "test_node",
    "killed_at_any_call",
    "test_install",
)
_running = pytest.StashKey[testserver.Shared]()


@pytest.hookimpl(tryfirst=True)  # before xdist starts its processes, which inherit the environment
def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workerinput") or config.option.collectonly or testserver.skipped():
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    with ExitStack() as stack:
        if capture is not None:
            stack.enter_context(capture.global_and_fixture_disabled())  # the first time takes minutes, and says so
        try:
            config.stash[_running] = testserver.Shared()
        except EnvironmentProblem as problem:
            raise pytest.UsageError(str(problem)) from problem


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    running = session.config.stash.get(_running, None)
    if running is not None:
        failed = exitstatus not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
        running.stop(keep=failed)
        if failed:
            print(f"\nlogs of the API server and of its parts: {running.folder}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = testserver.skipped()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
            if OWN & set(getattr(item, "fixturenames", ())):
                # In one process: each that has a test of the module would start a control plane.
                item.add_marker(pytest.mark.xdist_group(item.path.name))
    # What takes a minute begins first, so that none of it is left alone at the end of a parallel run.
    items.sort(key=lambda item: not any(word in item.nodeid for word in LONG))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """The operator's log belongs to a failed test's report."""
    outcome: Any = yield
    report = outcome.get_result()
    operator = getattr(item, "funcargs", {}).get("operator")
    if report.failed and isinstance(operator, Operator):
        report.sections.append(("operator", "\n".join(operator.log.read_text(errors="replace").splitlines()[-60:])))


@pytest.fixture(scope="session")
def server() -> Server:
    """The API server that all share. `server.audit_log` is None where it is not ours."""
    return testserver.server()


@pytest.fixture
def audit_log(server: Server) -> Path:
    """Every request that the server has answered, a JSON object a line."""
    if server.audit_log is None:
        pytest.skip("KUBECONFIG names the cluster: the audit log of its API server cannot be read")
    return server.audit_log


@pytest.fixture
def namespace(server: Server) -> Iterator[str]:
    """One of the test's own, where pods can be made; it is deleted with all in it."""
    name = f"test-{secrets.token_hex(4)}"
    kubectl = Kubectl(server.kubeconfig)
    kubectl("create", "namespace", name)
    kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=30s")
    yield name
    kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def kubectl(server: Server, namespace: str) -> Kubectl:
    """kubectl 1.37 in the test's namespace, as administrator."""
    return Kubectl(server.kubeconfig, namespace)


@pytest.fixture
def cluster(server: Server) -> AbstractAsyncContextManager[KubeCluster]:
    """A client, as administrator; a test that is a coroutine gets it open."""
    return _open(str(server.kubeconfig))


@asynccontextmanager
async def _open(kubeconfig: str) -> AsyncIterator[KubeCluster]:
    async with connected(kubeconfig) as found:
        yield found


@pytest.fixture
def team(server: Server, namespace: str) -> AbstractAsyncContextManager[Team]:
    """The test's namespace by such a client, with what a test does and waits for there."""
    return _team(str(server.kubeconfig), namespace)


@asynccontextmanager
async def _team(kubeconfig: str, namespace: str) -> AsyncIterator[Team]:
    async with connected(kubeconfig) as found:
        yield Team(found, namespace)


@pytest.fixture
def nodes(server: Server, namespace: str) -> Iterator[Callable[..., list[str]]]:
    """`nodes(3, {"cpu": "8", "nvidia.com/gpu": "1"})`: simulated nodes of the test's own, which it gets the names of.

    Only pods come to them whose spec went through `support.kwok.on_own_nodes(spec, namespace)`.
    """
    kubectl = Kubectl(server.kubeconfig)
    made: list[str] = []

    def add(count: int, capacity: dict[str, str]) -> list[str]:
        added = add_nodes(
            kubectl,
            count,
            {"cpu": "64", "memory": "256Gi", **capacity},
            prefix=namespace,
            start=len(made),
            only_for=namespace,
        )
        made.extend(added)
        return added

    yield add
    if made:
        kubectl("delete", "nodes", "--ignore-not-found", *made)


@pytest.fixture
def operator(kubectl: Kubectl, tmp_path: Path) -> Iterator[Operator]:
    """`platform operator run` at work in the test's namespace, under its own account and Role."""
    yield from operating(kubectl, tmp_path)


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """A control plane that a module may stop, pause and start again. Its tests get it by

    @pytest.fixture
    def server(own_server: OwnServer) -> Server:
        return own_server.server
    """
    yield from _started(tmp_path_factory, gang=True)


@pytest.fixture(scope="module")
def server_without_gangs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """The same without Kubernetes' own gang scheduling: it knows no PodGroup and drops a pod's schedulingGroup."""
    yield from _started(tmp_path_factory, gang=False)


def _started(tmp_path_factory: pytest.TempPathFactory, *, gang: bool) -> Iterator[OwnServer]:
    if os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names the cluster: this needs an API server that may be broken")
    found = OwnServer(tmp_path_factory.mktemp("server"), gang=gang)
    found.start()
    yield found
    found.stop()
