"""A queue of keys: each waits at most once, is worked on by one worker at a time, and comes back later when asked to.

The pattern of client-go's workqueue. Belongs to one event loop; only `get` waits.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_SPARE = 64  # entries that count no more and are not worth the sweeping


class WorkQueue(Generic[Key]):
    """A key added while it is being worked on is given out again when that is done.

    `clock` gives seconds and never goes back. After the nth failure in a row a key comes back in `first_delay_s` times
    2 to the n - 1, at most `longest_delay_s`.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        first_delay_s: float = 0.05,
        longest_delay_s: float = 60.0,
    ) -> None:
        self._clock = clock
        self._first_delay_s = first_delay_s
        self._longest_delay_s = longest_delay_s
        self._ready: deque[Key] = deque()
        self._waiting: set[Key] = set()  # what is in _ready, or will be when its worker is done
        self._working: set[Key] = set()
        self._later: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}  # the one entry of _later that counts
        self._sequence = 0
        self._failures: dict[Key, int] = {}
        self._since: dict[Key, float] = {}  # when what is in _waiting was added
        self._closed = False
        self._wake = asyncio.Event()

    def add(self, key: Key) -> None:
        """Work on `key` as soon as a worker is free."""
        if self._closed or key in self._waiting:
            return
        self._waiting.add(key)
        self._since[key] = self._clock()
        if key not in self._working:
            self._ready.append(key)
            self._wake.set()

    def add_after(self, key: Key, delay_s: float) -> None:
        """Work on `key` in `delay_s` seconds, or sooner where that was asked for before."""
        if delay_s <= 0:
            self.add(key)
            return
        due = self._clock() + delay_s
        if self._closed or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._later, (due, self._sequence, key))
        if len(self._later) > 2 * len(self._due) + _SPARE:
            # Entries that a sooner one has replaced would stay until they are due, be that in a year.
            self._later = [entry for entry in self._later if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._later)
        self._wake.set()

    def add_failed(self, key: Key) -> float:
        """Work on `key` again after a pause that grows with its failures in a row; returns the pause in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay_s = min(self._longest_delay_s, self._first_delay_s * 2.0 ** min(failures, 32))
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: Key) -> None:
        """`key` went well: its failures in a row begin at 0 again."""
        self._failures.pop(key, None)

    async def get(self) -> Key | None:
        """The next key, to be given back by `done`; None once the queue is closed."""
        while True:
            self._wake.clear()
            if self._closed:
                return None
            self._move_due()
            if self._ready:
                key = self._ready.popleft()
                self._waiting.discard(key)
                del self._since[key]
                self._working.add(key)
                return key
            left_s = max(0.0, self._later[0][0] - self._clock()) if self._later else None
            try:
                async with asyncio.timeout(left_s):
                    await self._wake.wait()
            except TimeoutError:
                continue  # something is due

    def done(self, key: Key) -> None:
        """The worker has finished with `key`."""
        self._working.discard(key)
        if key in self._waiting:
            self._ready.append(key)
            self._wake.set()

    def clear(self) -> None:
        """Forget what waits, and what is to come later; what is being worked on is given back by `done`."""
        for kept in (self._ready, self._waiting, self._later, self._due, self._since):
            kept.clear()

    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._waiting)

    def oldest_s(self) -> float:
        """For how many seconds the first of them has waited; 0 where none does."""
        return self._clock() - next(iter(self._since.values())) if self._since else 0.0

    def wake(self) -> None:
        """Look at the clock again: for clocks that do not run by themselves."""
        self._wake.set()

    def close(self) -> None:
        """No key is given out from now on."""
        self._closed = True
        self._wake.set()

    def _move_due(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
