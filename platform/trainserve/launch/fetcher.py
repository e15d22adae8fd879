"""Fetch the pictures of TRAINSERVE_SPEC: `python -m trainserve.launch.fetcher`, a process that a rank starts and reads.

stdout is for the rank, JSON a line: {"done", "total"} in bytes, at the end {"path", "digest", "pictures", "reused"} or
{"error", "hint"}; the exit code is the error's. It ends when its stdin does: the rank is gone. Imports no torch.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from trainserve import log as logs
from trainserve.errors import EXIT_OK, EXIT_SIGTERM, PlatformError
from trainserve.kube.names import ENV_SPEC
from trainserve.machine.home import home
from trainserve.machine.usage import size_words
from trainserve.spec.classifier import Classifier
from trainserve.train.fetch import fetch

TELL_S = 10.0  # between two lines of the log

log = logging.getLogger("trainserve.launch.fetcher")  # not __main__, which nobody prints


def main() -> int:
    """The whole process."""
    logs.setup()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    data = Classifier.model_validate_json(os.environ[ENV_SPEC]).spec.data
    cache = Path(data.cache) if data.cache else home() / "data"
    begun = time.monotonic()
    log.info("fetching %s into %s", data.path, cache)
    try:
        found = fetch(data.path, cache, digest=data.digest, heard=_Progress(data.path).hear, say=log.info)
    except PlatformError as error:
        _tell({"error": error.message, "hint": error.hint})
        return error.exit_code
    if found.reused:
        log.info("%s is in the cache: %d pictures, %s", data.path, found.pictures, found.digest)
    else:
        seconds = max(time.monotonic() - begun, 1e-3)
        log.info(
            "fetched %d pictures of %s: %s in %.1f s (%s/s), %s", found.pictures, data.path, size_words(found.bytes),
            seconds, size_words(round(found.bytes / seconds)), found.digest,
        )  # fmt: skip
    _tell(
        {"path": str(found.path), "digest": found.digest, "pictures": found.pictures, "reused": found.reused},
    )
    return EXIT_OK


class _Progress:
    """A line of the log every ten seconds, and one for the rank every second."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._began: tuple[float, int] | None = None  # (monotonic, bytes that were there)
        self._logged = time.monotonic()
        self._told = 0.0
        self._lock = threading.Lock()

    def hear(self, done: int, total: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._began = self._began or (now, done)
            if now - self._told >= 1:
                self._told = now
                _tell({"done": done, "total": total})
            if now - self._logged >= TELL_S:
                self._logged = now
                since, had = self._began
                rate = size_words(round((done - had) / max(now - since, 1e-3)))
                share = f"{100 * done / total:.0f} % of {size_words(total)}" if total else size_words(done)
                log.info("fetching %s: %s, %s/s", self._url, share, rate)


def _tell(fact: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        continue
    os._exit(EXIT_SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
