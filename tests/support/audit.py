"""What an API server has answered to whom, from its audit log (audit.k8s.io/v1, a JSON object a line)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainserve.kube import moments


class AuditLog:
    """Requests that were answered after this was made, in the order of their answers; ends of watches too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = path.stat().st_size

    def requests(self, user: str) -> list[dict[str, Any]]:
        """Those of one user, such as `service_account(namespace, name)`."""
        return [entry for entry in self._entries() if entry["user"]["username"] == user]

    def _entries(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:
            file.seek(self._start)
            for line in file:
                if line.endswith(b"\n"):  # the last one may be half written
                    yield json.loads(line)


def service_account(namespace: str, name: str) -> str:
    """The user that a service account's token is."""
    return f"system:serviceaccount:{namespace}:{name}"


def received(entry: dict[str, Any]) -> float:
    """When the server got the request, in unix seconds."""
    seconds = moments.unix(entry["requestReceivedTimestamp"])
    assert seconds is not None, entry
    return seconds


def written(entry: dict[str, Any]) -> bool:
    """Whether it changed something."""
    return entry["verb"] in {"create", "update", "patch", "delete"} and entry["responseStatus"]["code"] < 300


def shown(entries: list[dict[str, Any]]) -> list[str]:
    """For a failed test's message: one line a request."""
    return [f"{entry['verb']} {entry['requestURI']} {entry['responseStatus'].get('code')}" for entry in entries]
