"""One suite for every API server: tests are coroutines that get an open `cluster` and a `namespace` of their own."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from trainserve.local.server import MemoryCluster

_namespaces = itertools.count(1)


@pytest.fixture
def cluster() -> AbstractAsyncContextManager[MemoryCluster]:
    """Opened inside the test's event loop, where a client's connections belong."""
    return _memory()


@asynccontextmanager
async def _memory() -> AsyncIterator[MemoryCluster]:
    yield MemoryCluster()


@pytest.fixture
def namespace() -> str:
    return f"conformance-{next(_namespaces)}"


@pytest.fixture
def compact() -> Callable[[MemoryCluster], None]:
    """Makes a server forget its history."""
    return MemoryCluster.compact


@pytest.fixture
def bookmark_within_s() -> float:
    """Length of a watch in which the server sends a bookmark."""
    return 0.05


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
        await asyncio.wait_for(test(**arguments), timeout=60)
