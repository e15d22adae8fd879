"""An API server between controller and store that refuses, loses answers, or ends the controller, at the nth call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from support.scenario import Crash
from trainserve.kube.cluster import ApiError, Cluster, Conflict, Gone, Manifest

Fault = Literal[
    "conflict", "gone", "too many requests", "server error", "no answer", "lost answer", "crash", "late crash"
]
FAULTS: tuple[Fault, ...] = (
    "conflict", "gone", "too many requests", "server error", "no answer", "lost answer", "crash", "late crash",
)  # fmt: skip
CALLS = frozenset({"get", "list", "create", "patch", "delete"})
_LATE = frozenset({"lost answer", "late crash"})  # once the write has reached the store


class Faulty:
    """`cluster`; `fail(n, fault)` makes the nth call from now on go wrong, once. `created` is told of what was made."""

    def __init__(self, cluster: Cluster, created: Callable[[Manifest], Awaitable[None]] | None = None) -> None:
        self._cluster = cluster
        self._created = created
        self._planned: dict[int, Fault] = {}
        self.calls = 0

    def fail(self, n: int, fault: Fault) -> None:
        self._planned[self.calls + n] = fault

    def heal(self) -> None:
        self._planned.clear()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)
        if name not in CALLS:
            return method

        async def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            fault = self._planned.pop(self.calls, None)
            if fault is not None and fault not in _LATE:
                raise _error(fault, name)
            answer = await method(*args, **options)
            if name == "create" and self._created is not None:
                await self._created(answer)
            if fault is not None:
                raise _error(fault, name)
            return answer

        return call


def _error(fault: Fault, call: str) -> BaseException:
    said = f"{call}: a fault of the test: {fault}"
    match fault:
        case "conflict":
            return Conflict(said)
        case "gone":
            return Gone(said)
        case "too many requests":
            return ApiError(said, status=429, reason="TooManyRequests")
        case "server error":
            return ApiError(said)
        case "no answer" | "lost answer":
            return ConnectionError(said)
        case "crash" | "late crash":
            return Crash(said)
