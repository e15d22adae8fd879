"""Pictures out of an archive that a stranger may have made: nothing is written but pictures, and only below the folder.

Refused are names that lead out, links in the place of pictures, encrypted members, and archives that hold more than
their size can mean: pictures are compressed already.
"""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISLNK
from typing import IO

from trainserve.errors import DataError
from trainserve.machine.usage import size_words
from trainserve.train.manifest import File, check_name, is_picture

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
LARGEST = 2**30  # bytes of one picture
EXPANSION = 50  # how many times larger than the archive its pictures may be, ...
SPARE = 2**30  # ... and so many bytes more
CHUNK = 2**20

Member = tuple[str, int, IO[bytes]]  # name, bytes that it says it has, its content

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


def is_archive(name: str) -> bool:
    """Whether the last word of a path or URL is the name of an archive that is read."""
    return name.lower().endswith(ENDINGS)


def extract(archive: Path, name: str, folder: Path, heard: Callable[[int], None]) -> list[File]:
    """Write the pictures below `folder`; `heard(bytes written)` now and then.

    `name` is what the archive is called for its user. Raises DataError, OSError (a full disk).
    """
    limit = archive.stat().st_size * EXPANSION + SPARE
    files: list[File] = []
    written = 0
    made: set[Path] = set()
    try:
        for path, _, stream in _members(archive, name):
            target = folder / path
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            digest, size = hashlib.sha256(), 0
            try:
                out = target.open("xb")
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                raise DataError(f"{name}: {path!r} is in it twice") from error
            with out:
                while piece := stream.read(CHUNK):
                    size += len(piece)
                    written += len(piece)
                    if size > LARGEST or written > limit:
                        raise DataError(
                            f"{name} has {size_words(archive.stat().st_size)} and would become more than "
                            f"{size_words(min(limit, written))} ({path!r}): pictures do not do that",
                            hint="make it again, of pictures alone",
                        )
                    digest.update(piece)
                    out.write(piece)
            files.append(File(path, digest.hexdigest(), size))
            heard(written)
    except _DAMAGED as error:
        raise DataError(f"{name} is no whole archive: {str(error) or type(error).__name__}") from error
    if not files:
        raise DataError(f"{name} holds no pictures", hint="one folder a class, or train/ and val/ with such folders")
    return files


def top(folder: Path) -> Path:
    """Where the class folders, or train/ and val/, are: an archive often has one folder around them."""
    while True:
        entries = list(folder.iterdir())
        if len(entries) != 1 or not entries[0].is_dir() or not any(below.is_dir() for below in entries[0].iterdir()):
            return folder
        folder = entries[0]


def _members(archive: Path, name: str) -> Iterator[Member]:
    if zipfile.is_zipfile(archive) and not name.lower().endswith(tuple(e for e in ENDINGS if e != ".zip")):
        yield from _of_zip(archive, name)
    else:
        yield from _of_tar(archive, name)


def _of_zip(archive: Path, name: str) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            path = info.filename
            if info.is_dir() or not _taken(path, name):
                continue
            if S_ISLNK(info.external_attr >> 16):
                raise _link(path, name)
            if info.flag_bits & 1:
                raise DataError(f"{name}: {path!r} is encrypted", hint="make the archive again, without a password")
            with opened.open(info) as stream:
                yield path, info.file_size, stream


def _of_tar(archive: Path, name: str) -> Iterator[Member]:
    with tarfile.open(archive, mode="r:*") as opened:
        for info in opened:
            path = info.name.removeprefix("./")
            if info.isdir() or not _taken(path, name):
                continue
            if not info.isreg():
                raise _link(path, name)
            stream = opened.extractfile(info)
            assert stream is not None, "a plain file"
            yield path, info.size, stream
        # To the end, where a compressed archive has its own digest; what follows the last member is not looked at.
        assert opened.fileobj is not None, "it is open"
        rest = 0
        while piece := opened.fileobj.read(CHUNK):
            rest += len(piece)
            if rest > SPARE:
                raise DataError(f"{name}: more than {size_words(SPARE)} of something follow its last member")


def _taken(path: str, name: str) -> bool:
    """Whether it is a picture. Raises DataError for one that leads out, whatever it is."""
    if path.startswith("/") or ".." in path.split("/"):
        raise DataError(f"{name}: {path[:200]!r} leads out of the folder", hint="nothing of it is taken")
    if not is_picture(path):
        return False
    check_name(path, name)
    return True


def _link(path: str, name: str) -> DataError:
    return DataError(
        f"{name}: {path!r} is a link or a device, and no plain file",
        hint="make the archive again with what the links mean: tar --dereference --hard-dereference",
    )
