"""One suite for every API server: tests are coroutines that get an open `cluster` and a `namespace` of their own.

pytest tests/conformance                        the one in memory
pytest tests/conformance --api-server FILE      the one that this kubeconfig names; the CRD is installed if missing
pytest tests/conformance tests/cluster --api-server shared      the one of the cluster tests
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from support import testserver
from support.coroutines import pytest_pyfunc_call  # noqa: F401 - pytest finds it here
from support.real import namespaced
from trainserve.kube.cluster import Cluster
from trainserve.local.server import MemoryCluster

_namespaces = itertools.count(1)


@pytest.fixture
def kubeconfig(request: pytest.FixtureRequest) -> str | None:
    """Of the real API server to test; None: the one in memory."""
    given: str | None = request.config.getoption("--api-server")
    if given != "shared":
        return given
    if reason := testserver.skipped():
        pytest.skip(reason)
    return str(testserver.server().kubeconfig)


@pytest.fixture
def cluster(kubeconfig: str | None, namespace: str) -> AbstractAsyncContextManager[Cluster]:
    """Opened inside the test's event loop, where a client's connections belong."""
    return _memory() if kubeconfig is None else namespaced(kubeconfig, namespace, f"{namespace}-other")


@asynccontextmanager
async def _memory() -> AsyncIterator[Cluster]:
    yield MemoryCluster()


@pytest.fixture
def namespace(kubeconfig: str | None) -> str:
    return f"conformance-{next(_namespaces) if kubeconfig is None else secrets.token_hex(4)}"


@pytest.fixture
def compact(kubeconfig: str | None) -> Callable[[MemoryCluster], None]:
    """Makes a server forget its history."""
    if kubeconfig is not None:
        pytest.skip("a real API server forgets by its own clock (5 minutes): what follows is tested in memory")
    return MemoryCluster.compact


@pytest.fixture
def bookmark_within_s(kubeconfig: str | None) -> float:
    """Length of a watch in which the server sends a bookmark: a real one sends one a minute."""
    return 0.05 if kubeconfig is None else 65.0
