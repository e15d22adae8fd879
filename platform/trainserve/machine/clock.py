"""A clock that is never set back or forward: deadlines and durations are counted by it.

`time.time` jumps when somebody, or the network, sets the clock. `time.monotonic` does not, but stands still on Linux
while a laptop sleeps. What counts here also counts the sleep (CLOCK_BOOTTIME; CLOCK_MONOTONIC does on macOS).
"""

from __future__ import annotations

import time
from collections.abc import Callable

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> float:
    """Seconds since some moment in the past, the same one for the whole life of a process; never decreasing."""
    return time.clock_gettime(_STEADY)


class Steady:
    """Unix seconds that go on evenly from when this was made, whatever happens to the machine's clock.

    `not_before` is the newest moment that is known to have passed, in unix seconds: a clock that was set back while
    nobody looked does not take time back.
    """

    def __init__(
        self,
        not_before: float = 0.0,
        *,
        wall: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = elapsed,
    ) -> None:
        self._elapsed = elapsed
        self._offset = max(wall(), not_before) - elapsed()

    def __call__(self) -> float:
        return self._offset + self._elapsed()
