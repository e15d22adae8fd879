"""What the engine and a model's process say to each other over a socket: JSON with bytes behind it. Never pickle.

A frame: 4 bytes, the length of a JSON object; the object; then the blobs whose sizes its key `blobs` lists.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

LENGTH = struct.Struct("!I")
LARGEST_HEAD = 16 * 1024 * 1024  # bytes of JSON: more is no frame of ours

Frame = tuple[dict[str, Any], list[bytes]]


class Closed(Exception):
    """The other side is gone."""


def encode(head: dict[str, Any], blobs: Sequence[bytes] = ()) -> list[bytes]:
    """A frame as pieces to be written one after the other; blobs are not copied."""
    text = json.dumps({**head, "blobs": [len(blob) for blob in blobs]}).encode()
    return [LENGTH.pack(len(text)) + text, *blobs]


def send(connection: socket.socket, head: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Write a frame. Raises OSError when the other side is gone."""
    for piece in encode(head, blobs):
        connection.sendall(piece)


def receive(connection: socket.socket) -> Frame:
    """Read a frame, blocking. Raises Closed at the end, also within a frame."""
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    head = _head(length, _exactly(connection, length))
    return head, [_exactly(connection, size) for size in head.pop("blobs")]


async def receive_async(reader: asyncio.StreamReader) -> Frame:
    """Read a frame. Raises Closed at the end, also within a frame."""
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        head = _head(length, await reader.readexactly(length))
        return head, [await reader.readexactly(size) for size in head.pop("blobs")]
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Closed from error


def _head(length: int, text: bytes) -> dict[str, Any]:
    assert length <= LARGEST_HEAD
    head = json.loads(text)
    assert isinstance(head, dict)
    return head


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            count = connection.recv_into(view)
        except ConnectionError as error:
            raise Closed from error
        if count == 0:
            raise Closed
        view = view[count:]
    return bytes(data)
