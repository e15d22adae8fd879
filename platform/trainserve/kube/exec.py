"""A command in a container, over a WebSocket: channels of the protocol v5.channel.k8s.io, and of v4.

https://kubernetes.io/docs/reference/using-api/api-concepts/ and k8s.io/apimachinery's pkg/util/remotecommand: the first
byte of each message is its channel.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp

from trainserve.errors import EnvironmentProblem

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
HEARTBEAT_S = 20.0  # pings: proxies close what is silent
_STDIN, _STDOUT, _STDERR, _ERROR = b"\0", 1, 2, 3
_KEPT = 4096  # bytes of stderr, for an error


class Exec:
    """stdin and stdout of the command; its stderr is in the error that ends `read`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._complaints = b""

    async def write(self, data: bytes) -> None:
        """To its stdin. Raises OSError."""
        await self._socket.send_bytes(_STDIN + data)

    async def read(self) -> AsyncIterator[bytes]:
        """Its stdout, until it ends. Raises EnvironmentProblem where it fails, OSError."""
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == _STDOUT:
                yield data
            elif channel == _STDERR:
                self._complaints = (self._complaints + data)[-_KEPT:]
            elif channel == _ERROR:
                self._check(data)
                return

    def _check(self, data: bytes) -> None:
        try:
            status = json.loads(data)
        except ValueError:
            status = {"status": "Failure", "message": data.decode(errors="replace")}
        if status.get("status") != "Success":
            said = self._complaints.decode(errors="replace").strip().splitlines()
            raise EnvironmentProblem(f"the command in the pod failed: {said[-1] if said else status.get('message')}")
