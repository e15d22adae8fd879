"""An API server for an operator that holds a lease: reading is free, writing only for as long as the lease is ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Literal, TypeVar

from trainserve.kube.cluster import Cluster, Manifest, Page, WatchEvent
from trainserve.kube.names import Kind

T = TypeVar("T")


class LeaseLost(ConnectionError):
    """This operator may not write: it does not hold the lease, or could not renew it in time."""


class Fenced:
    """`cluster`, on which nothing is written unless `writable_s` allows it at that very moment.

    That gives the seconds for which we may write from now on, as far as is known: `Election.writable_s`.

    A process that was stopped, or a machine that slept, finds out here before it writes anything more. A write that is
    under way when the time runs out is given up; whether the server has done it is unknown then.
    """

    def __init__(self, cluster: Cluster, writable_s: Callable[[], float]) -> None:
        self._cluster = cluster
        self._writable_s = writable_s

    async def serves(self, kind: Kind) -> bool:
        return await self._cluster.serves(kind)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest:
        return await self._cluster.get(kind, namespace, name)

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
        return await self._cluster.list(
            kind, namespace, labels=labels, fields=fields, limit=limit, continue_token=continue_token
        )

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
        return self._cluster.watch(
            kind, namespace, labels=labels, fields=fields, resource_version=resource_version, timeout_s=timeout_s
        )

    async def create(self, kind: Kind, namespace: str, manifest: Manifest) -> Manifest:
        return await self._write(lambda: self._cluster.create(kind, namespace, manifest))

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Manifest,
        *,
        subresource: Literal["", "status"] = "",
    ) -> Manifest:
        return await self._write(lambda: self._cluster.patch(kind, namespace, name, patch, subresource=subresource))

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        grace_period_s: int | None = None,
    ) -> None:
        await self._write(lambda: self._cluster.delete(kind, namespace, name, uid=uid, grace_period_s=grace_period_s))

    async def _write(self, write: Callable[[], Awaitable[T]]) -> T:
        left_s = self._writable_s()
        if left_s <= 0:
            raise LeaseLost("this operator does not hold the lease")
        writing = asyncio.ensure_future(self._if_still_ours(write))
        try:
            while left_s > 0:
                done, _ = await asyncio.wait((writing,), timeout=left_s)
                if done:
                    return writing.result()
                left_s = self._writable_s()  # renewed meanwhile?
            raise LeaseLost("this operator lost the lease while it was writing")
        finally:
            writing.cancel()

    async def _if_still_ours(self, write: Callable[[], Awaitable[T]]) -> T:
        """A task begins a turn of the loop after it was made, and the process may have been stopped in between."""
        if self._writable_s() <= 0:
            raise LeaseLost("this operator lost the lease before it wrote")
        return await write()
