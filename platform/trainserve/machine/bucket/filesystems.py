"""Whatever else fsspec opens: hdfs, sftp, smb, a mounted folder, memory. Written under another name, then renamed."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trainserve.errors import EnvironmentProblem, UserError, not_installed
from trainserve.machine.bucket.store import CHUNK, Item
from trainserve.machine.bucket.words import Absent, told

UNFINISHED = ".part-"  # in the middle of a name, before some random letters: never listed


class FileSystem:
    """A folder of a file system of fsspec."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise not_installed("fsspec, which opens this URL,", "train") from error
        self.url = url
        try:
            files, path = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise EnvironmentProblem(
                f"{url}: {error}", hint="install that package beside trainserve, in the image of the pods too"
            ) from error
        except Exception as error:
            schemes = "s3, gs, az, http, https, pvc, hostpath"
            raise UserError(
                f"{url}: {str(error).splitlines()[0]}", hint=f"known are {schemes}, and more of fsspec's"
            ) from error
        self._files: Any = files
        self._root = str(path).rstrip("/")

    def list(self, prefix: str = "") -> Iterator[Item]:
        root = self._path(prefix) if prefix else self._root
        try:
            self._files.invalidate_cache()
            if not self._files.exists(root):
                return
            found = self._files.find(root, detail=True)
        except Exception as error:
            raise told(error, self._named(prefix), "listed") from error
        for path, about in found.items():
            name = str(path)[len(self._root) :].lstrip("/")
            if UNFINISHED not in name.rpartition("/")[2]:
                yield _item(name, about)

    def head(self, name: str) -> Item | None:
        try:
            self._files.invalidate_cache()
            about = self._files.info(self._path(name))
        except Exception as error:
            problem = told(error, self._named(name), "read")
            if isinstance(problem, Absent):
                return None
            raise problem from error
        return _item(name, about) if about.get("type") == "file" else None

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        try:
            with self._files.open(self._path(name), "rb") as source:
                source.seek(start)
                while piece := source.read(CHUNK):
                    yield piece
        except Exception as error:
            raise told(error, self._named(name), "read") from error

    def send(self, file: Path, name: str) -> None:
        with file.open("rb") as source:
            self._put(name, iter(lambda: source.read(CHUNK), b""))

    def write(self, name: str, data: bytes) -> None:
        self._put(name, iter([data]))

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._files.rm_file(self._path(name))
            except FileNotFoundError:
                continue
            except Exception as error:
                raise told(error, self._named(name), "removed") from error

    def _put(self, name: str, pieces: Iterator[bytes]) -> None:
        path = self._path(name)
        folder, _, last = path.rpartition("/")
        draft = f"{folder}/{last}{UNFINISHED}{secrets.token_hex(4)}"
        try:
            self._files.makedirs(folder, exist_ok=True)
            with self._files.open(draft, "wb") as target:
                for piece in pieces:
                    target.write(piece)
            self._files.mv(draft, path)
        except Exception as error:
            raise told(error, self._named(name), "written") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _named(self, name: str) -> str:
        return f"{self.url}/{name}".rstrip("/")


def _item(name: str, about: dict[str, Any]) -> Item:
    stamp = about.get("ETag") or about.get("mtime") or about.get("created") or about.get("last_modified") or ""
    return Item(name, int(about.get("size") or 0), str(stamp))
