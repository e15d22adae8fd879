"""One suite for every API server: tests are coroutines that get an open `cluster` and a `namespace` of their own.

pytest tests/conformance                        the one in memory
pytest tests/conformance --api-server FILE      the one that this kubeconfig names; the CRD is installed if missing
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from support.real import namespaced
from trainserve.kube.cluster import Cluster
from trainserve.local.server import MemoryCluster

_namespaces = itertools.count(1)


@pytest.fixture
def kubeconfig(request: pytest.FixtureRequest) -> str | None:
    """Of the real API server to test; None: the one in memory."""
    given: str | None = request.config.getoption("--api-server")
    return given


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


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = pyfuncitem._fixtureinfo.argnames
    asyncio.run(_call(pyfuncitem.obj, {name: pyfuncitem.funcargs[name] for name in wanted}))
    return True


async def _call(test: Callable[..., Any], arguments: dict[str, Any]) -> None:
    async with AsyncExitStack() as stack:
        for name, value in arguments.items():
            if isinstance(value, AbstractAsyncContextManager):
                arguments[name] = await stack.enter_async_context(value)
        await asyncio.wait_for(test(**arguments), timeout=90)
