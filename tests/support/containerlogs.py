"""Logs as a kubelet gives them: moments, follow, sinceTime in whole seconds, tailLines, and ways that break off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta

from trainserve.kube.cluster import BadRequest
from trainserve.kube.outage import NoAnswer

BEGAN = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
POLL_S = 0.005


class ContainerLog:
    """One start of a container. `write` lines, `end` it; `cut` ends every open reading, in the middle of a line."""

    def __init__(self) -> None:
        self.lines: list[tuple[datetime, str]] = []
        self.ended = False
        self.readings = 0
        self._cuts = 0

    def write(self, text: str, *, after_s: float | None = None) -> None:
        """`after_s`: since the beginning; as many seconds as the line before unless given."""
        last = self.lines[-1][0] if self.lines else BEGAN
        self.lines.append((last if after_s is None else BEGAN + timedelta(seconds=after_s), text))

    def end(self) -> None:
        self.ended = True

    def cut(self) -> None:
        self._cuts += 1

    async def read(self, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The pieces of one connection."""
        self.readings += 1
        cuts, given = self._cuts, 0
        since = datetime.fromisoformat(query["sinceTime"].replace("Z", "+00:00")) if "sinceTime" in query else BEGAN
        if "tailLines" in query:
            given = max(0, len(self.lines) - int(query["tailLines"]))
        while True:
            ended = self.ended  # before the lines: what was written until the end is given
            new, given = self.lines[given:], len(self.lines)
            data = b"".join(_line(moment, text) for moment, text in new if moment >= since)
            if self._cuts != cuts:
                if data:
                    yield data[:-4]
                raise NoAnswer("the log broke off")
            if data:
                yield data
            if ended or query.get("follow") != "true":
                return
            await asyncio.sleep(POLL_S)


class NodeLogs:
    """The logs of all containers of a node, by pod, container and start."""

    def __init__(self) -> None:
        self.starts: dict[tuple[str, str], list[ContainerLog]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def start(self, pod: str, container: str = "pytorch") -> ContainerLog:
        """A container starts, perhaps again."""
        found = ContainerLog()
        self.starts.setdefault((pod, container), []).append(found)
        return found

    def forget(self, pod: str) -> None:
        """The pod is removed, and its logs with it; open readings end."""
        for place in [place for place in self.starts if place[0] == pod]:
            for log in self.starts.pop(place):
                log.end()

    def find(self, pod: str, query: Mapping[str, str]) -> ContainerLog:
        """Raises BadRequest where there is none, as a kubelet does."""
        self.asked.append((pod, dict(query)))
        starts = self.starts.get((pod, query["container"]), [])
        which = 2 if query.get("previous") == "true" else 1
        if len(starts) < which:
            raise BadRequest(f'previous terminated container "{query["container"]}" in pod "{pod}" not found')
        return starts[-which]


def _line(moment: datetime, text: str) -> bytes:
    return f"{moment.strftime('%Y-%m-%dT%H:%M:%S.%f')}000Z {text}\n".encode()
