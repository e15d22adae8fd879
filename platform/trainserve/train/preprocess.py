"""From the bytes of a picture to the tensor the network sees: the same file in training and in serving.

Packaging copies this file byte for byte beside the weights, so it imports torch, Pillow and the standard library only
(torch late: checking pictures does not need it), and pillow-heif where a HEIC picture comes and it is installed.

Any picture becomes upright RGB: EXIF orientation applied, grey and palette expanded, transparency laid on white,
16-bit grey reduced to its high byte (as Pillow does for 16-bit colour), CMYK converted, the first frame of an
animation. JPEGs much larger than needed are decoded at 1/2, 1/4 or 1/8 of their size.

Memory: at most about 12 bytes a pixel of the picture (alpha on white: picture, white, RGB).
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image, UnidentifiedImageError, features

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL_PX = 64

# Formats whose header states the true size, so that the pixel limit holds before anything is decoded (an ICO, say, may
# hold a far larger PNG), and which start no other program (EPS does). What else costs is in `refuse_too_large`.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "HEIF")
# Brands of ISO/IEC 23008-12 in a file's first box: HEVC pictures, single or in a sequence.
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
AVIF_BRANDS = {b"avif", b"avis"}

ORIENTATION_TAG = 0x0112
TILE_TAGS = (322, 323)  # TIFF's TileWidth and TileLength
# Scans of a JPEG at the pixel limit: more of smaller ones. A progressive one has about 10; each is a pass over all of
# the picture, and a file of 16 MiB may have 200,000.
SCANS = 64
TILED = 6  # times the pixel limit that all tiles and layers of a picture may have together, transparency included
AV1_OBUS = 4096  # parts of one AV1 picture that are looked at; it has some ten
OVERLAP = 8  # times the size of a file that its items may have together: it may list one piece a million times
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow's limit is one number for the whole process and only warns below twice its value; `max_pixels` below is an
# argument, strict, and checked first.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of harmless oddities, such as broken EXIF. Once for the process: catch_warnings is not for threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with a picture is in the exception, with its name


class PictureError(ValueError):
    """These bytes are no picture we can read; the message is a short reason for whoever sent them."""


@dataclass(frozen=True)
class Preprocessing:
    """The numbers of the preprocessing. They travel from the spec through checkpoint and bundle to the server."""

    image_size: int  # px, side of the square the network sees
    resize: int  # px, the shorter side before the centre crop
    mean: tuple[float, float, float]  # of red, green, blue in 0..1
    std: tuple[float, float, float]
    max_pixels: int  # largest width x height decoded

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= self.resize:
            raise ValueError(f"image_size {self.image_size} must be from 1 to resize {self.resize}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} must be three numbers each, std above 0")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels {self.max_pixels} must be at least 1")

    @classmethod
    def for_size(cls, image_size: int, max_pixels: int) -> Preprocessing:
        """ImageNet's mean and std; above 64 px the shorter side is 256/224 of the crop, as is usual."""
        resize = image_size if image_size <= SMALL_PX else round(image_size * 256 / 224)
        return cls(image_size, resize, IMAGENET_MEAN, IMAGENET_STD, max_pixels)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`. Raises ValueError for unknown, missing or impossible values."""
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            raise ValueError(f"preprocessing has the fields {sorted(values)}, expected {sorted(known)}")
        mean, std = ([float(number) for number in values[key]] for key in ("mean", "std"))
        return cls(
            int(values["image_size"]),
            int(values["resize"]),
            tuple(mean),  # type: ignore[arg-type]  # __post_init__ counts them
            tuple(std),  # type: ignore[arg-type]
            int(values["max_pixels"]),
        )


def preprocess(data: bytes, preprocessing: Preprocessing) -> torch.Tensor:
    """What the network sees of a picture: float32 [3, S, S], normalised. Raises PictureError."""
    return to_tensor(decode(data, preprocessing), preprocessing)


def decode(data: bytes, preprocessing: Preprocessing) -> Image.Image:
    """The picture, upright and RGB; a JPEG may be smaller than its file says, never below twice `resize`.

    Raises PictureError, and nothing else, for whatever the bytes hold.
    """
    if not data:
        raise PictureError("empty file")
    try:
        return _decode(data, preprocessing)
    except PictureError:
        raise
    except MemoryError:
        raise PictureError("decoding it needs more memory than there is") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, EOFError...
        raise PictureError(reason_of(error, data)) from error


def open_picture(file: BinaryIO) -> Image.Image:
    """The picture in `file`, its header read and nothing decoded. Raises PictureError, and whatever Pillow raises."""
    head = file.read(64)
    file.seek(0)
    brands = {head[at : at + 4] for at in range(8, len(head), 4)} if head[4:8] == b"ftyp" else set()
    formats = [name for name in FORMATS if name not in {"AVIF", "HEIF"}]
    if brands & AVIF_BRANDS:
        if not features.check("avif"):
            raise PictureError("an AVIF picture, which this Pillow does not read: pip install 'pillow>=11.3'")
        formats = ["AVIF"]
    elif brands & HEIC_BRANDS:
        _register_heif()
        formats = ["HEIF"]
    return Image.open(file, formats=formats)


@functools.cache
def _register_heif() -> None:
    """Teach Pillow to read HEIC: only where one comes, for it costs a tenth of a second. Raises PictureError."""
    try:
        import pillow_heif
    except ImportError:
        raise PictureError("a HEIC picture, and pillow-heif is not installed here: pip install pillow-heif") from None
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def _decode(data: bytes, preprocessing: Preprocessing) -> Image.Image:
    with open_picture(BytesIO(data)) as opened:
        refuse_too_large(opened, data, preprocessing.max_pixels)
        opened.draft(opened.mode, (2 * preprocessing.resize, 2 * preprocessing.resize))
        opened.load()
        turn = UPRIGHT.get(_orientation(opened))
        image = _rgb(opened)
    return image if turn is None else image.transpose(turn)


def refuse_too_large(opened: Image.Image, data: bytes, max_pixels: int) -> None:
    """Raises PictureError when decoding would cost more than the picture's limit, before anything is decoded.

    `data` is all of the file.
    """
    _refuse_size(*opened.size, max_pixels)
    if opened.format == "TIFF":
        tags = opened.tag_v2  # type: ignore[attr-defined]
        width, height = (tags.get(tag) for tag in TILE_TAGS)
        if isinstance(width, int) and isinstance(height, int):  # a tile is decoded whole, whatever the picture's size
            _refuse_size(width, height, max_pixels)
    elif opened.format in {"AVIF", "HEIF"}:
        if opened.format == "AVIF":
            _refuse_size(*_coded_size(data), max_pixels)
        _refuse_tiles(data, max_pixels, coded=opened.format == "AVIF")
    elif opened.format == "JPEG":
        scans = data.count(b"\xff\xda")
        if scans * opened.width * opened.height > SCANS * max_pixels:
            raise PictureError(f"{scans} scans of {opened.width} x {opened.height} pixels: decoding takes too long")


def _refuse_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PictureError(
            f"{width} x {height} = {width * height:,} pixels is more than the limit of {max_pixels:,} (maxPixels)"
        )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; a broken EXIF block says nothing, so 1."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # the parser meets arbitrary bytes here
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, either byte order, or 32-bit integers: the range is taken as 0..65535
        high_byte = image.convert("I").point(lambda value: value * (1 / 256))
        return high_byte.convert("L").convert("RGB")  # to L clips
    if image.mode == "F":  # no range is defined: 0..1 unless a value is larger, then 0..255
        _, largest = image.getextrema()
        scale = 255.0 if largest <= 1 else 1.0  # type: ignore[operator]  # one band: two numbers
        return image.point(lambda value: value * scale + 0.0).convert("L").convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        over = image if image.mode == "RGBA" else _rgba(image)
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        white.alpha_composite(over)
        return white.convert("RGB")
    return image.convert("RGB")


def _rgba(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        return image.convert("LA").convert("RGBA")
    return image.convert("RGBA")


def reason_of(error: Exception, data: bytes) -> str:
    """A short reason, from what the decoder said and how the bytes begin: their first 4096 are enough."""
    if isinstance(error, UnidentifiedImageError):
        head = data[:256].lstrip().lower()
        if head.startswith((b"<!doctype html", b"<html", b"<?xml", b"<svg")):
            return "not a picture: it is an HTML or XML page"
        if not any(data[:4096]):
            return "not a picture: it begins with zeros"
        return f"not a picture in a format we read ({', '.join(FORMATS)})"
    text = " ".join(str(error).split())[:120]
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated: the file ends too early"
    return f"corrupt: {text or type(error).__name__}"


def to_tensor(image: Image.Image, preprocessing: Preprocessing) -> torch.Tensor:
    """Resize the shorter side, crop the centre, normalise: float32 [3, S, S].

    One bilinear, antialiased resize of the region that the crop keeps: nothing outside it is computed, so a picture of
    1 x 1,000,000 pixels costs no more than another.
    """
    width, height = image.size
    size = preprocessing.image_size
    side = min(width, height) * size / preprocessing.resize  # of the kept square, in the picture's pixels
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return normalise(image.resize((size, size), Image.Resampling.BILINEAR, box=box), preprocessing)


def normalise(image: Image.Image, preprocessing: Preprocessing) -> torch.Tensor:
    """An RGB picture as float32 [3, H, W]: (value / 255 - mean) / std."""
    import torch

    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
    values = pixels.permute(2, 0, 1).to(torch.float32).div_(255).contiguous()
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (preprocessing.mean, preprocessing.std))
    return values.sub_(mean).div_(std)


def _coded_size(data: bytes) -> tuple[int, int]:
    """The largest (width, height) that an AV1 stream of an AVIF says it is coded with.

    The container's size (ispe) is only what the decoded picture is scaled to: a file of 1 KiB that says 16 x 16 may
    hold 16,384 x 16,384. Raises PictureError where no stream says its size. Sources: AV1 Bitstream Specification 5.3
    and 5.5 (OBUs, sequence header); ISO/IEC 14496-12 8.7.5, 8.11.3 (chunk offsets, item locations).
    """
    sizes = [size for stream in _av1_streams(data) for size in _sequence_sizes(stream)]
    if not sizes:
        raise PictureError("corrupt: an AVIF without an AV1 picture")
    return max(sizes, key=lambda size: size[0] * size[1])


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end of the contents) of the boxes in data[start:end]."""
    while start + 8 <= end:
        size, kind, body = _number(data, start, 4), data[start + 4 : start + 8], start + 8
        if size == 1:
            size, body = _number(data, body, 8), body + 8
        stop = end if size == 0 else start + size
        if stop < body or stop > end:
            return
        yield kind, body, stop
        start = stop


def _number(data: bytes, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "big")


def _av1_streams(data: bytes, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The bytes of every item of an AVIF, AV1 or not, and of the first picture of every track."""
    for kind, body, stop in _boxes(data, start, len(data) if end is None else end):
        if kind in {b"moov", b"trak", b"mdia", b"minf"}:
            yield from _av1_streams(data, body, stop)
        elif kind == b"stbl":
            inner = {name: first for name, first, _ in _boxes(data, body, stop)}
            chunks, sizes = inner.get(b"stco") or inner.get(b"co64"), inner.get(b"stsz")
            if chunks is not None and sizes is not None:
                offset = _number(data, chunks + 8, 4 if b"stco" in inner else 8)
                size = _number(data, sizes + 4, 4) or _number(data, sizes + 12, 4)  # of all, or of the first
                yield data[offset : offset + size]
        elif kind == b"meta":
            boxes = {name: (first, last) for name, first, last in _boxes(data, body + 4, stop)}
            if b"iloc" in boxes:
                yield from _items(data, *boxes[b"iloc"], boxes.get(b"idat", (0, 0))[0]).values()


def _items(data: bytes, at: int, end: int, idat: int) -> dict[int, bytes]:
    """Number -> bytes of the items of an iloc box. Raises PictureError when they hold the file many times over."""
    version = data[at]
    offset_size, length_size = data[at + 4] >> 4, data[at + 4] & 15
    base_size, index_size = data[at + 5] >> 4, data[at + 5] & 15 if version else 0
    wide = 4 if version == 2 else 2
    count = _number(data, at + 6, wide)
    at += 6 + wide
    items: dict[int, bytes] = {}
    left = OVERLAP * len(data)
    for _ in range(count):
        if at >= end:
            break
        item, at = _number(data, at, wide), at + wide
        method = _number(data, at, 2) & 15 if version else 0
        at += 4 if version else 2  # construction method, data reference
        base = _number(data, at, base_size) + (idat if method == 1 else 0)
        extents = _number(data, at + base_size, 2)
        at += base_size + 2
        parts = []
        for _ in range(extents):
            if at >= end:
                break
            offset = base + _number(data, at + index_size, offset_size)
            length = _number(data, at + index_size + offset_size, length_size)
            parts.append(data[offset : offset + length] if length else data[offset:])
            at += index_size + offset_size + length_size
            left -= len(parts[-1])
            if left < 0:
                raise PictureError("corrupt: its items overlap")
        items[item] = b"".join(parts)
    return items


def _refuse_tiles(data: bytes, max_pixels: int, *, coded: bool) -> None:
    """Raises PictureError when the tiles or layers that a HEIC or AVIF is made of are too large together.

    A file of 20 KiB may say that it is 16 x 16 and that it is made of the same 4096 x 4096 a thousand times. Tiles are
    as large as their ispe says (HEIC's decoder looks) or, with `coded`, as their AV1 streams say. Source: ISO/IEC
    23008-12 6.6 (derived images), 9.3 (properties).
    """
    meta = next(((body + 4, stop) for kind, body, stop in _boxes(data, 0, len(data)) if kind == b"meta"), (0, 0))
    boxes = list(_boxes(data, *meta))
    where = {kind: (body, stop) for kind, body, stop in boxes}
    parts: dict[int, list[int]] = {}  # of an item: what it is made of
    beside: list[tuple[int, int]] = []  # (item, what it belongs to), such as transparency
    if b"iref" in where:
        body, stop = where[b"iref"]
        wide = 4 if data[body] else 2
        for kind, first, last in _boxes(data, body + 4, stop):
            item, count = _number(data, first, wide), _number(data, first + wide, 2)
            places = range(first + wide + 2, min(last, first + wide + 2 + count * wide), wide)
            if kind == b"dimg":
                parts.setdefault(item, []).extend(_number(data, place, wide) for place in places)
            elif kind == b"auxl":
                beside += [(item, _number(data, place, wide)) for place in places]
    if not parts:
        return
    for canvas in _canvases(data, where):
        _refuse_size(*canvas, max_pixels)
    areas = _areas(data, boxes)
    if coded and b"iloc" in where:
        for item, stream in _items(data, *where[b"iloc"], where.get(b"idat", (0, 0))[0]).items():
            areas[item] = max([areas.get(item, 0), *(width * height for width, height in _sequence_sizes(stream))])
    costs: dict[int, int] = {}

    def cost(item: int, above: frozenset[int] = frozenset()) -> int:
        if item in above or len(above) > 8:
            raise PictureError("corrupt: a picture made of itself")
        if item not in costs:
            costs[item] = areas.get(item, 0) + sum(cost(part, above | {item}) for part in parts.get(item, []))
        return costs[item]

    primary = _number(data, where[b"pitm"][0] + 4, 4 if data[where[b"pitm"][0]] else 2) if b"pitm" in where else 0
    together = cost(primary) + sum(cost(item) for item, of in beside if of == primary)
    if together > TILED * max_pixels:
        raise PictureError(
            f"its tiles have {together:,} pixels together, more than {TILED} times the limit (maxPixels)"
        )


def _canvases(data: bytes, where: Mapping[bytes, tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(width, height) that grids and overlays say they have."""
    if b"iinf" not in where or b"iloc" not in where:
        return
    body, stop = where[b"iinf"]
    items = _items(data, *where[b"iloc"], where.get(b"idat", (0, 0))[0])
    for _, first, _last in _boxes(data, body + (8 if data[body] else 6), stop):
        wide = 4 if data[first] == 3 else 2
        kind = data[first + 6 + wide : first + 10 + wide]
        if kind not in {b"grid", b"iovl"}:
            continue
        says = items.get(_number(data, first + 4, wide), b"")
        size, at = (4 if says[1:2] and says[1] & 1 else 2), (4 if kind == b"grid" else 10)
        yield _number(says, at, size), _number(says, at + size, size)


def _areas(data: bytes, boxes: list[tuple[bytes, int, int]]) -> dict[int, int]:
    """Item -> width x height of its largest ispe."""
    areas: dict[int, int] = {}
    for _, body, stop in (box for box in boxes if box[0] == b"iprp"):
        inside = list(_boxes(data, body, stop))
        properties = [box for kind, first, last in inside if kind == b"ipco" for box in _boxes(data, first, last)]
        sizes = [
            _number(data, first + 4, 4) * _number(data, first + 8, 4) if kind == b"ispe" else 0
            for kind, first, _ in properties
        ]
        for _, first, last in (box for box in inside if box[0] == b"ipma"):
            wide, long = (4 if data[first] else 2), data[first + 3] & 1
            at = first + 8
            while at < last:
                item, count = _number(data, at, wide), _number(data, at + wide, 1)
                at += wide + 1
                for place in range(at, min(last, at + count * (1 + long)), 1 + long):
                    index = _number(data, place, 1 + long) & (0x7FFF if long else 0x7F)
                    if 1 <= index <= len(sizes):
                        areas[item] = max(areas.get(item, 0), sizes[index - 1])
                at += count * (1 + long)
    return areas


def _sequence_sizes(stream: bytes) -> Iterator[tuple[int, int]]:
    """(width, height) of each sequence header among a stream's OBUs."""
    at = obus = 0
    while at < len(stream):
        obus += 1
        if obus > AV1_OBUS:
            raise PictureError(f"corrupt: an AV1 picture of more than {AV1_OBUS} parts")
        kind, extended, sized = stream[at] >> 3, stream[at] & 4, stream[at] & 2
        at += 2 if extended else 1
        size, shift = (0, 0) if sized else (len(stream) - at, 56)
        while shift < 56 and at < len(stream):  # LEB128
            byte = stream[at]
            size, shift, at = size | (byte & 127) << shift, shift + 7 if byte & 128 else 56, at + 1
        if kind == 1:
            yield _sequence_size(stream[at : at + size])
        elif kind > 15:  # the forbidden bit: no OBU
            return
        at += size


def _sequence_size(header: bytes) -> tuple[int, int]:
    bits = int.from_bytes(header[:256], "big")
    left = 8 * len(header[:256])

    def take(count: int) -> int:
        nonlocal left
        left -= count
        if left < 0:
            raise PictureError("corrupt: an AV1 sequence header that ends too early")
        return bits >> left & (1 << count) - 1

    take(4)  # profile, still picture
    if take(1):  # reduced header
        take(5)
    else:
        delay = 0  # bits of a buffer delay, where there is a decoder model
        if take(1):  # timing
            take(64)
            if take(1):
                zeros = 0
                while not take(1):
                    zeros += 1
                take(zeros)
            if take(1):
                delay = take(5) + 1
                take(42)
        display_delay = take(1)
        for _ in range(take(5) + 1):  # operating points
            take(12)
            if take(5) > 7:
                take(1)
            if delay and take(1):
                take(2 * delay + 1)
            if display_delay and take(1):
                take(4)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    return take(width_bits) + 1, take(height_bits) + 1
