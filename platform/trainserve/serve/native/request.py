"""The body of a request, read as it comes and no further than its limit, and taken apart as TorchServe does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from trainserve.machine.usage import MIB
from trainserve.serve.native.process import Item

UPLOAD_TIMEOUT_S = 60.0  # for one body
ENVELOPE_BYTES = 64 * 1024  # names, boundaries and options around a picture
LARGEST_PARTS = 16
BODIES_MIB = 256  # all bodies that are held at one time, or four of the largest where that is more


class Refused(Exception):
    """A request that is answered with an error: status, reason in words, and when asking again may help."""

    def __init__(self, status: int, reason: str, retry_after_s: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after_s = status, reason, retry_after_s


class Budget:
    """Bytes of bodies that may be held at one time by all requests together."""

    def __init__(self, largest_upload: int) -> None:
        self.limit = max(BODIES_MIB * MIB, 4 * largest_upload)
        self.held = 0

    def take(self, size: int) -> None:
        """Raises Refused when there is no room."""
        if self.held + size > self.limit:
            raise Refused(503, f"{self.limit // MIB} MiB of pictures are being received and answered already", 1)
        self.held += size


async def read_item(request: Request, limit: int, held: list[int], budget: Budget) -> Item:
    """The request as the handler takes it; a picture may have `limit` bytes.

    `held[0]` counts what was taken from the budget: the caller gives it back when the request is done. Raises Refused,
    and ClientDisconnect when the client goes away first.
    """
    kind = request.headers.get("content-type", "")
    media_type, options = parse_options_header(kind)
    largest = limit
    if media_type == b"multipart/form-data":
        largest = limit + ENVELOPE_BYTES
    elif media_type == b"application/json":
        largest = -(-limit // 3) * 4 + ENVELOPE_BYTES  # base64
    declared = request.headers.get("content-length")
    if declared is not None and int(declared) > largest:  # h11 lets nothing but digits through
        raise too_large(limit, int(declared))
    body = _stream(request, largest, limit, held, budget)
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            if media_type == b"multipart/form-data":
                fields = await _multipart(body, options.get(b"boundary", b""))
            else:
                fields = [("body", kind, b"".join([chunk async for chunk in body]))]
    except TimeoutError:
        raise Refused(408, f"the request was not complete after {UPLOAD_TIMEOUT_S:g} s") from None
    headers = {**request.headers, "explain": "False", "url_path": request.url.path}
    return Item(headers, tuple(fields))


def too_large(limit: int, size: int | None = None) -> Refused:
    """413 with the limit in words, the handler's own."""
    said = "the body" if size is None else f"{size:,} bytes"
    return Refused(413, f"{said} is more than the limit of {limit:,}{' bytes' if size is None else ''} (maxUploadMib)")


async def _stream(request: Request, largest: int, limit: int, held: list[int], budget: Budget) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > largest:
            raise too_large(limit)
        budget.take(len(chunk))
        held[0] += len(chunk)
        if chunk:
            yield chunk


async def _multipart(body: AsyncIterator[bytes], boundary: bytes) -> list[tuple[str, str, bytes]]:
    """Fields in the order they came. Raises Refused for what is no multipart body."""
    if not boundary:
        raise Refused(400, "multipart/form-data without a boundary in Content-Type")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]  # its types want all callbacks
        async for chunk in body:
            parser.write(chunk)
    except FormParserError as error:
        raise Refused(400, f"the multipart body is damaged: {error}") from None
    if not parts.complete:
        raise Refused(400, "the multipart body ends too early")
    names = [name for name, _, _ in parts.fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Refused(400, f"the field {twice[0][:40]} comes more than once; send one picture in a request")
    return [(name, kind, bytes(data)) for name, kind, data in parts.fields]


class _Parts:
    """What the parser has found so far."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, str, bytearray]] = []
        self.complete = False
        self._header = [bytearray(), bytearray()]
        self._headers: dict[bytes, bytes] = {}

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._named,
            "on_part_data": lambda data, start, end: self.fields[-1][2].extend(data[start:end]),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.fields) == LARGEST_PARTS:
            raise Refused(400, f"the multipart body has more than {LARGEST_PARTS} fields")
        self._headers = {}

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = [bytearray(), bytearray()]

    def _named(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise Refused(400, "a part of the multipart body has no name")
        kind = self._headers.get(b"content-type", b"").decode("latin-1")
        self.fields.append((options[b"name"].decode("utf-8", "replace"), kind, bytearray()))

    def _end(self) -> None:
        self.complete = True


async def gone(request: Request) -> None:
    """Returns when the client has closed the connection; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
