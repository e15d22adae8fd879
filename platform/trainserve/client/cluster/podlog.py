"""A container's log as a kubelet gives it, each line once, also over connections that break off: pure.

With `timestamps=true` each line begins with its moment. `sinceTime` counts whole seconds, so what comes again after a
break are the lines of the last second: they are counted, and so many are passed over.
Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST_LINE = 1 << 20  # bytes; a longer one comes in parts, so that no log fills the memory
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) ?")


class Lines:
    """Takes the pieces of one connection after another; gives whole lines without their moments."""

    def __init__(self) -> None:
        self._rest = b""
        self._second = b""  # the newest of all lines that were given
        self._zone = b"Z"
        self._given = 0  # lines of that second, or of a later one
        self._skip = 0
        self._inside = False  # a line that is too long has begun

    @property
    def since(self) -> str | None:
        """The `sinceTime` to go on from; None where no line was given yet."""
        return (self._second + self._zone).decode() if self._second else None

    def again(self) -> None:
        """A new connection begins, with `since`."""
        self._rest, self._inside = b"", False
        self._skip = self._given

    def feed(self, piece: bytes) -> Iterator[str]:
        """The lines that this piece ends."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        for line in whole:
            yield from self._line(line)
        while len(self._rest) >= LONGEST_LINE:
            part, self._rest = self._rest[:LONGEST_LINE], self._rest[LONGEST_LINE:]
            yield from self._line(part)
            self._inside = True

    def end(self) -> Iterator[str]:
        """The container has ended: its last line may have no newline."""
        rest, self._rest = self._rest, b""
        if rest:
            yield from self._line(rest)

    def _line(self, line: bytes) -> Iterator[str]:
        if self._inside:
            self._inside = False
            yield line.decode("utf-8", "replace")
            return
        match = _STAMP.match(line)
        if match is None:  # the kubelet's own words about a log that it cannot read
            yield line.rstrip(b"\r").decode("utf-8", "replace")
            return
        second = match[1]
        if self._skip and second >= self._second:
            if second == self._second:
                self._skip -= 1
                return
            self._skip = 0  # a later second: what was to come again is gone from the node
        if second > self._second:
            self._second, self._zone, self._given = second, match[3], 1
        elif second == self._second:
            self._given += 1
        elif self._skip:
            return  # older than what was asked for
        yield line[match.end() :].rstrip(b"\r").decode("utf-8", "replace")
