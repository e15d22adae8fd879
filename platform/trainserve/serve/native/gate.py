"""Who may ask, and what browsers are told: around every route. Plain ASGI."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainserve.machine.ports import LOOPBACK_HOSTS

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
NOTHING = "default-src 'none'; frame-ancestors 'none'"  # for what is no page


class Gate:
    """Refuses other hosts' names and other sites' pages, and adds headers to every answer.

    A page of another site cannot read answers (there is no CORS), but its browser would send the request: Origin tells.
    A name that an attacker points at 127.0.0.1 (DNS rebinding) makes the page ours to the browser: Host tells.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("content-security-policy", NOTHING)
            await send(message)

        problem = _problem(Headers(scope=scope))
        if problem is None:
            await self._app(scope, receive, with_headers)
            return
        body = json.dumps({"code": 403, "type": "Forbidden", "message": problem}).encode()
        start = {"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"application/json")]}
        await with_headers(start)
        await with_headers({"type": "http.response.body", "body": body})


def _problem(headers: Headers) -> str | None:
    host = headers.get("host", "")
    if _hostname(f"//{host}") not in LOOPBACK_HOSTS:
        return f"Host {host[:80]!r} is not this machine's loopback; ask for http://127.0.0.1 or http://localhost"
    origin = headers.get("origin")
    if origin is not None and _hostname(origin) not in LOOPBACK_HOSTS:
        return f"a page of {origin[:80]!r} may not ask this server"
    return None


def _hostname(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
