"""Are the pictures readable? Asked before training, not at step 601 of 629. Imports no torch."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, Literal, TypeVar

from PIL import Image

from trainserve.errors import DataError
from trainserve.machine.files import write_json
from trainserve.spec.classifier import DataSpec
from trainserve.train.folders import as_text
from trainserve.train.imagefolder import SHOWN, Listing, Sample
from trainserve.train.preprocess import (
    SCANS,
    PictureError,
    Preprocessing,
    decode,
    open_picture,
    reason_of,
    refuse_too_large,
)

FULL_UP_TO = 20_000  # pictures; above, `auto` reads head and tail only
HEAD_BYTES, TAIL_BYTES = 4096, 64 * 1024
LARGE_PIXELS = 16_000_000  # such pictures are decoded one at a time: each may take 12 bytes a pixel
AT_ONCE = 64  # pictures handed to a thread
ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # what a whole file of the format has at its end
MARKER_BYTES = 2  # of a JPEG's marker, with which a scan begins
SIZES_READ = 1000  # headers that `median_short_side` reads

Mode = Literal["full", "fast", "none"]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class BadPicture:
    """A picture that cannot be used: path below the root, and why."""

    path: str
    reason: str


def mode_of(data: DataSpec, pictures: int) -> Mode:
    """What `auto` means for so many pictures."""
    if data.check == "auto":
        return "full" if pictures <= FULL_UP_TO else "fast"
    return data.check


def check(
    listing: Listing,
    data: DataSpec,
    *,
    threads: int,
    shard: tuple[int, int] = (0, 1),
    progress: Callable[[int], None] | None = None,
) -> list[BadPicture]:
    """The unreadable pictures among every `shard[1]`-th one from `shard[0]` on, in the listing's order.

    Decoders release the interpreter lock, so threads are enough. `progress` hears how many are done, at times.
    """
    samples = list(listing.samples())[shard[0] :: shard[1]]
    mode = mode_of(data, len(listing.train) + len(listing.val))
    if mode == "none":
        return []
    bad = []

    def reason(sample: Sample) -> str | None:
        return fault(listing.root / sample.path, mode, data.max_pixels)

    for done, (sample, why) in enumerate(in_order(reason, samples, threads), start=1):
        if why is not None:
            bad.append(BadPicture(sample.path, why))
        if progress is not None and (done % 100 == 0 or done == len(samples)):
            progress(done)
    return bad


def in_order(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Iterator[tuple[Item, Result]]:
    """Each item with what `function` says of it, in order, from `threads` threads that are never far ahead.

    `Executor.map` would queue everything at once: hundreds of bytes for each of a million pictures.
    """

    def some(part: Sequence[Item]) -> list[tuple[Item, Result]]:
        return [(item, function(item)) for item in part]

    waiting: deque[Future[list[tuple[Item, Result]]]] = deque()
    pool = ThreadPoolExecutor(max_workers=max(1, threads))
    try:
        for start in range(0, len(items), AT_ONCE):
            waiting.append(pool.submit(some, items[start : start + AT_ONCE]))
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing more is begun


def fault(
    path: Path,
    mode: Mode,
    max_pixels: int,
    data: bytes | None = None,
    pixels: int | None = None,
    see: Callable[[Image.Image], None] | None = None,
) -> str | None:
    """Why this picture cannot be used, None if it can. `data` and `pixels` of its header: if known already.

    In mode full `see` is shown the decoded picture. Asked by training and by `platform data check` alike.
    """
    try:
        if mode == "fast":
            _look(path, max_pixels)
        else:
            data = path.read_bytes() if data is None else data
            numbers = Preprocessing.for_size(16, max_pixels)  # whole pictures matter here, not their size afterwards
            with in_turn(pixels_of(data) if pixels is None else pixels):
                image = decode(data, numbers)
            if see is not None:
                see(image)
    except PictureError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    return None


_large = threading.Lock()


def in_turn(pixels: int) -> AbstractContextManager[object]:
    """Decode a picture of so many pixels inside of this: large ones one at a time in the whole process."""
    return _large if pixels > LARGE_PIXELS else nullcontext()


def pixels_of(data: bytes) -> int:
    """What the header says, 0 where it says nothing: then there is nothing to decode."""
    try:
        with open_picture(BytesIO(data)) as image:
            return image.width * image.height
    except Exception:  # decoders raise anything; `decode` says it in words
        return 0


def _look(path: Path, max_pixels: int) -> None:
    """Format, cost, and that the file was written to its end, mostly from head and tail; nothing is decoded.

    What costs too much to decode is refused as `decode` refuses it. Raises PictureError, OSError.
    """
    with path.open("rb") as file:
        if not file.read(1):
            raise PictureError("empty file")
        file.seek(0)
        try:
            with open_picture(file) as image:
                refuse_too_large(image, path.read_bytes() if _costs_hide(image, file, max_pixels) else b"", max_pixels)
                ending = ENDINGS.get(image.format or "")
                if ending is not None and ending not in _tail(file):
                    raise PictureError("truncated: the file ends too early")
        except PictureError:
            raise
        except Exception as error:  # decoders raise anything
            file.seek(0)
            raise PictureError(reason_of(error, file.read(HEAD_BYTES))) from error


def _costs_hide(image: Image.Image, file: BinaryIO, max_pixels: int) -> bool:
    """Whether what decoding costs stands anywhere in the file, and not in its head alone.

    A HEIC or AVIF may be made of many tiles; of a JPEG each scan is a pass over the picture, and a small one has no
    room for too many.
    """
    if image.width * image.height > max_pixels:
        return False  # too large already
    scans = file.seek(0, 2) // MARKER_BYTES  # at most
    return image.format in {"AVIF", "HEIF"} or (
        image.format == "JPEG" and scans * image.width * image.height > SCANS * max_pixels
    )


def _tail(file: BinaryIO) -> bytes:
    size = file.seek(0, 2)
    file.seek(max(0, size - TAIL_BYTES))
    return file.read()


def vetted(listing: Listing, data: DataSpec, bad: Sequence[BadPicture]) -> Listing:
    """The listing to train on, with a notice where pictures are left out. Raises DataError unless `skip_bad`."""
    if not bad:
        return listing
    total = len(listing.train) + len(listing.val)
    if not data.skip_bad:
        shown = "\n".join(f"  {as_text(picture.path)}: {picture.reason}" for picture in bad[:SHOWN])
        more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        too_large = any("(maxPixels)" in picture.reason for picture in bad)
        raise DataError(
            f"{len(bad)} of {total} pictures in {listing.root} cannot be read:\n{shown}{more}",
            hint="repair or remove them, or train without them with --skip-bad"
            + ("; spec.data.maxPixels raises the limit on size" if too_large else ""),
        )
    kept = listing.without(picture.path for picture in bad)
    before, after = listing.counts(), kept.counts()
    emptied = [name for name in kept.classes if before[name][0] and not after[name][0]]
    if emptied:
        classes = ", ".join(map(as_text, emptied[:SHOWN]))
        raise DataError(
            f"without its unreadable pictures class {classes} has none left for training",
            hint="repair some of them, or remove the class folder",
        )
    names = ", ".join(as_text(picture.path) for picture in bad[:3]) + (", ..." if len(bad) > 3 else "")
    notice = f"{len(bad)} picture{'s' * (len(bad) != 1)} skipped: {names}"
    return replace(kept, notices=(*kept.notices, notice))


def key(listing: Listing, data: DataSpec) -> dict[str, Any]:
    """What a stored result must agree with to be used again."""
    mode = mode_of(data, len(listing.train) + len(listing.val))
    return {"fingerprint": listing.fingerprint, "check": mode, "maxPixels": data.max_pixels}


def store(path: Path, listing: Listing, data: DataSpec, bad: Sequence[BadPicture]) -> None:
    """Write `data-check.json`. Raises OSError."""
    checked = len(listing.train) + len(listing.val)
    write_json(path, {**key(listing, data), "checked": checked, "bad": [asdict(picture) for picture in bad]})


def stored(path: Path, listing: Listing, data: DataSpec) -> list[BadPicture] | None:
    """The result of an earlier check of the very same files, None if there is none."""
    try:
        found = json.loads(path.read_bytes())
        if any(found[name] != value for name, value in key(listing, data).items()):
            return None
        return [BadPicture(str(bad["path"]), str(bad["reason"])) for bad in found["bad"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # not there, or not ours: checking again costs time only


def left_out(path: Path) -> tuple[BadPicture, ...]:
    """Pictures that a training with skipBad left out, by its data-check.json; none where there is no such file."""
    try:
        return tuple(BadPicture(str(bad["path"]), str(bad["reason"])) for bad in json.loads(path.read_bytes())["bad"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()  # a bundle that was copied has none beside it


def checked(listing: Listing, data: DataSpec, path: Path, *, threads: int) -> Listing:
    """`vetted`, with the stored result if the files are unchanged, else after a check that is stored in `path`.

    Raises DataError, OSError.
    """
    bad = stored(path, listing, data)
    if bad is None:
        bad = check(listing, data, threads=threads)
        store(path, listing, data, bad)
    return vetted(listing, data, bad)


def median_short_side(listing: Listing) -> int:
    """Median of the pictures' shorter sides in pixels, from the headers of up to 1000 training pictures spread evenly.

    Raises DataError when none of these can be read.
    """
    pictures = listing.train
    stride = max(1, len(pictures) // SIZES_READ)
    sides = [side for sample in pictures[::stride] if (side := _short_side(listing.root / sample.path)) is not None]
    if not sides:
        raise DataError(f"none of the {len(pictures)} training pictures in {listing.root} can be read")
    return round(median(sides))


def _short_side(path: Path) -> int | None:
    """None for an unreadable picture: that is the check's business."""
    try:
        with path.open("rb") as file, open_picture(file) as image:
            return min(image.size)
    except Exception:  # decoders raise anything
        return None
