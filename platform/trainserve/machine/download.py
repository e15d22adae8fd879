"""One file over HTTP, from where an earlier try ended, as RFC 9110 (Range) says.

Whether the bytes are the right ones is its caller's to tell, by their digest.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from trainserve.errors import EnvironmentProblem
from trainserve.machine.usage import size_words

TRIES = 3  # in a row without a new byte
SILENCE_S = 30.0  # without a byte, then the connection is given up
CHUNK = 256 * 1024
LARGEST = 4 * 2**30  # bytes of a file of ours; the largest has 1.5 GiB

Heard = Callable[[int, int], None]  # (bytes done, bytes in all or 0 where not known)


def fetch_whole(url: str, part: Path, heard: Heard, *, hint: str, largest: int | None = None) -> None:
    """`fetch` until all is there: again after a broken connection or an error of the server, with a pause.

    Raises EnvironmentProblem with `hint` where TRIES in a row bring no new byte, or the server says no; OSError of the
    disk.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            return fetch(url, part, heard, largest)
        except (OSError, http.client.HTTPException) as error:
            if not is_network(error):
                raise
            failures = 0 if _size(part) > before else failures + 1
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if failures == TRIES or refused:
                code = "HTTP " if isinstance(error, urllib.error.HTTPError) else ""
                have = _size(part)
                kept = f"; {size_words(have)} of it are kept for the next try" if have else ""
                raise EnvironmentProblem(f"{url} cannot be had: {code}{words(error)}{kept}", hint=hint) from error
            time.sleep(failures)


def fetch(url: str, part: Path, heard: Heard, largest: int | None = None) -> None:
    """Append to `part` what is missing; `heard(bytes done, bytes in all or 0 where not known)` after each chunk.

    `largest` bytes may come; default LARGEST. Raises OSError and HTTPException, also where the body ends too early,
    EnvironmentProblem where it does not end.
    """
    have = _size(part)
    largest = largest or LARGEST
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError(f"{url}: http or https")
    request = urllib.request.Request(url, headers={"User-Agent": "trainserve"})  # noqa: S310  checked above
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=SILENCE_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()  # it is an open answer, too
        if error.code == 416 and have:  # nothing after what we have: all of it, or another file
            return
        raise
    with answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        start = have if goes_on else 0
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else 0
        with part.open("ab" if goes_on else "wb") as out:
            done = start
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                done += len(chunk)
                if done > largest:  # of no use for a next try, which would begin where this ended
                    part.unlink()
                    raise EnvironmentProblem(f"{url}: more than {largest:,} bytes came; removed")
                heard(done, total)
    if done < total:
        raise http.client.IncompleteRead(b"", total - done)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def is_network(error: Exception) -> bool:
    """Whether it is the network, not the disk."""
    return isinstance(error, urllib.error.URLError | http.client.HTTPException | ConnectionError | TimeoutError)


def words(error: Exception) -> str:
    """What the network did, for a sentence: `404 Not Found`, `Connection refused`."""
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection ended {error.expected:,} bytes too early"
    code = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
    reason = getattr(error, "reason", None) or error
    return code + (getattr(reason, "strerror", None) or str(reason) or type(error).__name__)
