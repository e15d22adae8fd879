"""HEIC and AVIF pictures made of tiles, as phones write them. No encoder here does: the container is made by hand.

Boxes: ISO/IEC 14496-12 (meta, iinf, iloc, iref) and 23008-12 (grid, ispe, ipma).
"""

from __future__ import annotations

from PIL import Image

from support import pictures


def grid(
    left: Image.Image, right: Image.Image, kind: str, size: tuple[int, int], stated: tuple[int, int], columns: int = 2
) -> bytes:
    """Two tiles side by side, again and again; `kind` is HEIF or AVIF.

    `size` is what the grid says it is, `stated` what its ispe says.
    """
    codec, config, brand = {"HEIF": (b"hvc1", b"hvcC", b"heic"), "AVIF": (b"av01", b"av1C", b"avif")}[kind]
    quality: dict[str, object] = {"HEIF": {"quality": 90, "chroma": 444}, "AVIF": {"quality": 95}}[kind]
    tiles = [pictures.encode(image, kind, **quality) for image in (left, right)]
    streams = [_contents(tile, b"mdat") for tile in tiles]
    descriptor = bytes((0, 0, 0, columns - 1)) + size[0].to_bytes(2, "big") + size[1].to_bytes(2, "big")
    properties = (
        _box(config, _contents(tiles[0], config)) + _ispe(left.size) + _ispe(stated) + _full(b"pixi", b"\3\x08\x08\x08")
    )
    items = [(1, codec), (2, codec), (3, b"grid")]
    infos = b"".join(
        _full(b"infe", number.to_bytes(2, "big") + b"\0\0" + name + b"\0", version=2) for number, name in items
    )
    associations = b"\0\0\0\3" + b"\0\1\3\x81\2\4" + b"\0\2\3\x81\2\4" + b"\0\3\2\3\4"

    def meta(first: int) -> bytes:
        places = [(1, 0, first, len(streams[0])), (2, 0, first + len(streams[0]), len(streams[1])), (3, 1, 0, 8)]
        locations = b"".join(
            item.to_bytes(2, "big") + method.to_bytes(2, "big") + b"\0\0\0\1" + at.to_bytes(4, "big")
            + length.to_bytes(4, "big")
            for item, method, at, length in places
        )  # fmt: skip
        return _full(
            b"meta",
            _full(b"hdlr", b"\0\0\0\0pict" + bytes(13))
            + _full(b"pitm", b"\0\3")
            + _full(b"iinf", b"\0\3" + infos)
            + _full(b"iref", _box(b"dimg", b"\0\3" + columns.to_bytes(2, "big") + b"\0\1\0\2" * (columns // 2)))
            + _box(b"iprp", _box(b"ipco", properties) + _full(b"ipma", associations))
            + _full(b"iloc", b"\x44\0\0\3" + locations, version=1)
            + _box(b"idat", descriptor),
        )

    head = _box(b"ftyp", brand + b"\0\0\0\0mif1" + brand + b"miaf")
    return head + meta(len(head) + len(meta(0)) + 8) + _box(b"mdat", b"".join(streams))


def _box(kind: bytes, contents: bytes) -> bytes:
    return (len(contents) + 8).to_bytes(4, "big") + kind + contents


def _full(kind: bytes, contents: bytes, version: int = 0) -> bytes:
    return _box(kind, bytes((version, 0, 0, 0)) + contents)


def _ispe(size: tuple[int, int]) -> bytes:
    return _full(b"ispe", size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big"))


def _contents(data: bytes, kind: bytes) -> bytes:
    """Of the first box of this kind."""
    at = data.index(kind) - 4
    return data[at + 8 : at + int.from_bytes(data[at : at + 4], "big")]
