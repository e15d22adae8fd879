"""A folder of a web server: read only, and without a list of what is in it."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.machine.bucket.store import CHUNK, Item
from trainserve.machine.bucket.words import told
from trainserve.machine.download import SILENCE_S


class Web:
    """`http://` or `https://`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def list(self, prefix: str = "") -> Iterator[Item]:  # noqa: ARG002
        raise UserError(
            f"{self.url} is a folder of a web server, which has no list of its files",
            hint="give an archive (.zip, .tar, .tar.gz), or what `platform data push` has written",
        )

    def head(self, name: str) -> Item | None:
        try:
            with self._ask(name, "HEAD") as answer:
                headers = answer.headers
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in {404, 410}:
                return None
            if error.code in {403, 405, 501}:  # a signed URL is for GET alone
                return Item(name, 0, "")
            raise told(error, f"{self.url}/{name}", "read") from error
        except (OSError, http.client.HTTPException) as error:
            raise told(error, f"{self.url}/{name}", "read") from error
        size = headers.get("Content-Length", "")
        return Item(name, int(size) if size.isdigit() else 0, headers.get("ETag") or headers.get("Last-Modified") or "")

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        try:
            with self._ask(name, "GET", start) as answer:
                if start and answer.status != 206:
                    raise EnvironmentProblem(f"{self.url}/{name}: the server cannot begin in the middle")
                while piece := answer.read(CHUNK):
                    yield piece
        except (OSError, http.client.HTTPException) as error:
            raise told(error, f"{self.url}/{name}", "read") from error

    def send(self, file: Path, name: str) -> None:  # noqa: ARG002
        self._refuse(name)

    def write(self, name: str, data: bytes) -> None:  # noqa: ARG002
        self._refuse(name)

    def remove(self, names: Iterable[str]) -> None:
        self._refuse(", ".join(names))

    def _ask(self, name: str, method: str, start: int = 0) -> http.client.HTTPResponse:
        headers = {"User-Agent": "trainserve"} | ({"Range": f"bytes={start}-"} if start else {})
        url = f"{self.url}/{quote(name, safe='/?&=%+:;,~@!$')}"
        request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310  http or https by open_bucket
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=SILENCE_S)  # noqa: S310
        return answer

    def _refuse(self, name: str) -> NoReturn:
        raise UserError(f"{self.url}/{name}: nothing is written to a web server", hint="s3://, gs://, az:// or pvc://")
