"""Bring a run's output back from its bucket: `python -m trainserve.launch.comeback`, which rank 0 starts and waits for.

The newest whole checkpoint, the best one that it names, and all that is small; a newer one that is on the disk already
stays. What comes is verified by the digest in its meta.json before it has its name. Imports no torch.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainserve import log as logs
from trainserve.errors import EXIT_OK, DataError, EnvironmentProblem, PlatformError
from trainserve.kube.names import ENV_STORE
from trainserve.launch import store
from trainserve.launch.store import CHECKPOINTS, META, RECORD, Store
from trainserve.machine.bucket.store import Item, read
from trainserve.machine.files import new_folder, sha256_of, write_bytes, write_json
from trainserve.machine.usage import size_words
from trainserve.train.manifest import check_name

LARGEST_META = 64 * 2**20  # bytes of a meta.json

log = logging.getLogger("trainserve.launch.comeback")  # not __main__, which nobody prints


def bring_back(env: Mapping[str, str]) -> None:
    """Do it in a process of its own: rank 0 forks later, which threads of a client do not survive.

    Raises EnvironmentProblem.
    """
    if not env.get(ENV_STORE):
        return
    done = subprocess.run(
        [sys.executable, "-m", "trainserve.launch.comeback"], env=dict(env), stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        message = (
            done.stdout.decode(errors="replace").strip() or f"the process that does it ended with {done.returncode}"
        )
        first, _, hint = message.partition("\nhint: ")
        raise EnvironmentProblem(f"the output cannot be brought back: {first}", hint=hint or None)


def main() -> int:
    logs.setup()
    try:
        found = store.opened(os.environ)
        assert found is not None, "asked for where there is one"
        restore(found)
    except PlatformError as error:
        sys.stdout.write(str(error))
        return error.exit_code
    return EXIT_OK


def restore(found: Store) -> str | None:
    """Bring back what is newer than what is here; the name of the checkpoint. Raises PlatformError."""
    items = {item.name: item for item in found.bucket.list() if _is_ours(item.name, found.bucket.url)}
    steps = sorted({name.split("/")[1] for name in items if _is_meta(name)}, reverse=True)
    here = sorted(path.parent.name for path in (found.output / CHECKPOINTS).glob(f"step-*/{META}"))
    if not steps or (here and here[-1] >= steps[0]):
        return None
    newest, meta = None, {}
    for name in steps:
        meta = _checkpoint(found, name, items) or {}
        if meta:
            newest = name
            break
    if newest is None:
        log.warning("none of the %d checkpoints in %s is whole: training starts again", len(steps), found.bucket.url)
        return None
    best = (meta.get("best") or {}).get("checkpoint", newest)
    if best != newest and isinstance(best, str) and f"{CHECKPOINTS}{best}/{META}" in items:
        _checkpoint(found, best, items)
    for name, item in items.items():
        if not name.startswith(CHECKPOINTS) and item.size <= store.SMALL:
            path = found.output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, read(found.bucket, name, store.SMALL))
    stamps = {name: now for name in items if (now := _stamp_of(found.output / name)) is not None}
    # A checkpoint that stays behind is in the record too, so that retention removes it from the bucket.
    left = {name: (item.size, 0) for name, item in items.items() if name.startswith(CHECKPOINTS) and name not in stamps}
    write_json(found.output / RECORD, {**left, **stamps}, indent=None)
    log.info("checkpoint %s is brought back from %s", newest, found.bucket.url)
    return newest


def _is_ours(name: str, url: str) -> bool:
    """Whether it may be a file of the output: somebody who can write to the bucket decides what it is called."""
    try:
        check_name(name, url)
    except DataError as error:
        log.warning("%s: passed over", error.message)
        return False
    return not name.startswith("logs/")


def _checkpoint(found: Store, name: str, items: Mapping[str, Item]) -> dict[str, Any] | None:
    """Bring one back; None where it is not whole."""
    folder = f"{CHECKPOINTS}{name}"
    raw = read(found.bucket, f"{folder}/{META}", LARGEST_META)
    try:
        meta: dict[str, Any] = json.loads(raw)
        wanted, size = meta["sha256"], meta["bytes"]
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s/%s: its %s cannot be read (%s): passed over", found.bucket.url, folder, META, error)
        return None
    state = items.get(f"{folder}/state.pt")
    if state is None or state.size != size:
        log.warning("%s/%s is torn: passed over", found.bucket.url, folder)
        return None
    log.info("bringing back %s/%s (%s)", found.bucket.url, folder, size_words(size))
    try:
        with new_folder(found.output / folder) as draft:
            with (draft / "state.pt").open("wb") as out:
                for piece in found.bucket.stream(f"{folder}/state.pt"):
                    out.write(piece)
            if sha256_of(draft / "state.pt") != wanted:
                raise _Torn
            (draft / META).write_bytes(raw)
    except _Torn:
        log.warning("%s/%s has another sha256 than it says: passed over", found.bucket.url, folder)
        return None
    except OSError as error:
        raise EnvironmentProblem(f"{error.filename or found.output}: {error.strerror or error}") from error
    return meta


class _Torn(Exception):
    pass


def _is_meta(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 3 and name.startswith(f"{CHECKPOINTS}step-") and parts[2] == META


def _stamp_of(path: Path) -> tuple[int, int] | None:
    try:
        return store.stamp(path)
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
