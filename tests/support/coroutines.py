"""Tests that are coroutines: a conftest imports `pytest_pyfunc_call` from here.

What a fixture gives as an asynchronous context manager is open for the length of the test, inside its event loop,
where a client's connections belong.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest

TIMEOUT_S = 120.0  # unless a test is marked with its own


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = pyfuncitem._fixtureinfo.argnames
    marker = pyfuncitem.get_closest_marker("timeout")
    timeout_s = float(marker.args[0]) if marker else TIMEOUT_S
    asyncio.run(_call(pyfuncitem.obj, {name: pyfuncitem.funcargs[name] for name in wanted}, timeout_s))
    return True


async def _call(test: Callable[..., Any], arguments: dict[str, Any], timeout_s: float) -> None:
    async with AsyncExitStack() as stack:
        for name, value in arguments.items():
            if isinstance(value, AbstractAsyncContextManager):
                arguments[name] = await stack.enter_async_context(value)
        await asyncio.wait_for(test(**arguments), timeout=timeout_s)
