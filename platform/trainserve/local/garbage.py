"""What can be thrown away on this machine without losing a result: found first, removed only when asked to.

Never found: a bundle, an archive, a run, anything of a run that goes on, the newest and the best checkpoint of a run
that is not finished. Runs themselves are `platform rm`'s.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainserve.errors import PlatformError, UserError
from trainserve.kube import names
from trainserve.local import kept, records, rundir
from trainserve.local.rundir import RunDir
from trainserve.machine import files, locks, temporary
from trainserve.machine.home import home
from trainserve.machine.usage import disk_bytes

OLDER_THAN_S = 7 * 86400.0
KEEP = 1
LOCK = "lock"  # of a server's folder too: never removed, since two processes could otherwise lock two files of a name
RECORD = "server.json"

Kind = Literal["checkpoint", "torn checkpoint", "log", "damaged record", "unfinished", "temporary", "server"]


@dataclass(frozen=True)
class Item:
    """One thing that can go."""

    kind: Kind
    path: Path
    bytes: int  # on the disk
    why: str
    run: str | None = None


@dataclass(frozen=True)
class Garbage:
    """What was found, and what of it is gone."""

    items: tuple[Item, ...]  # largest first
    removed: tuple[Item, ...] = ()
    refused: tuple[tuple[Item, OSError], ...] = ()  # by the disk

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    @property
    def freed(self) -> int:
        return sum(item.bytes for item in self.removed)


def find(*, older_than_s: float = OLDER_THAN_S, keep: int = KEEP, now: float | None = None) -> Garbage:
    """Everything that can go; changes nothing.

    Checkpoints and logs count from `older_than_s` seconds after the end of their run; of a succeeded run the best
    checkpoint and the `keep` newest stay, with `keep` 0 none: its bundle has the best weights. What a dead process left
    half-written counts at once. Raises UserError for negative numbers.
    """
    if older_than_s < 0 or keep < 0:
        raise UserError(f"older_than_s {older_than_s:g}, keep {keep}: neither may be negative")
    moment = time.time() if now is None else now
    found = [*_unfinished(), *_temporary(), *_servers(moment, older_than_s)]
    for run in rundir.all_runs():
        with contextlib.suppress(OSError):  # a run that cannot be read keeps no other from being tidied
            if not run.alive():
                found += _of_run(run, moment, older_than_s, keep)
    return Garbage(tuple(sorted(found, key=lambda item: (-item.bytes, str(item.path)))))


def remove(garbage: Garbage) -> Garbage:
    """Remove what `find` found; what has come to life since then, or was removed by somebody else, is passed over.

    What the disk does not let go is `refused`, and keeps nothing else from going.
    """
    gone, refused = [], []
    for item in garbage.items:
        try:
            with _unused(item) as free:
                if free and os.path.lexists(item.path) and _remove(item):
                    gone.append(item)
        except OSError as error:
            refused.append((item, error))
    return Garbage(garbage.items, tuple(gone), tuple(refused))


def _of_run(run: RunDir, now: float, older_than_s: float, keep: int) -> Iterator[Item]:
    """Of a run that does not go on."""
    try:
        state = run.state()
    except PlatformError:
        return  # damaged: nothing of it is touched until somebody has looked
    changed = max((_mtime(path) for path in (run.objects_path, run.job_path)), default=0.0)
    if now - changed < older_than_s:
        return
    for path in kept.torn(run.output):
        yield _item("torn checkpoint", path, "it was found torn, and set aside when the run went on", run.name)
    if state == names.SUCCEEDED and (run.output / "bundle" / "model.json").is_file():
        best = kept.best(run.output)
        for place, path in enumerate(kept.checkpoints(run.output)):
            if place >= keep and (path.name != best or keep == 0):
                yield _item("checkpoint", path, "the run has succeeded; its bundle has the best weights", run.name)
    last = run.last_generation()
    for folder in run.pods_path.glob("*.g*"):
        number = folder.name.rpartition(".g")[2]
        if number.isdigit() and int(number) < last:
            yield _item("log", folder, f"of start {number} of {last} of the run", run.name)
    for name in (records.OBJECTS, records.JOB):
        damaged = run.path / f"{name}{records.DAMAGED}"
        if os.path.lexists(damaged):
            yield _item("damaged record", damaged, "it was set aside when the run went on", run.name)


def _unfinished() -> Iterator[Item]:
    """What writers of ours leave when they are killed, where they leave it."""
    places: list[tuple[Path, str | None]] = [(home() / "runs", None)]
    for run in rundir.all_runs():
        places += [(folder, run.name) for folder in (run.path, run.output, run.output / kept.FOLDER)]
    with contextlib.suppress(OSError):
        places += [(path, None) for path in (home() / "serving").iterdir() if path.is_dir()]
    for folder, name in places:
        for path in files.leftovers(folder):
            yield _item("unfinished", path, "whoever wrote or removed it was killed", name)


def _temporary() -> Iterator[Item]:
    for path in temporary.stale_folders():
        yield _item("temporary", path, "the process that made it is dead")


def _servers(now: float, older_than_s: float) -> Iterator[Item]:
    with contextlib.suppress(FileNotFoundError):
        for folder in sorted((home() / "serving").iterdir()):
            if not folder.is_dir() or locks.is_held(folder / LOCK):
                continue
            for path in sorted(folder.iterdir()):
                if path.name == RECORD:
                    yield _item("server", path, f"server {folder.name} was killed")
                elif ".log" in path.suffixes and now - _mtime(path) >= older_than_s:
                    yield _item("log", path, f"server {folder.name} has ended")


def _item(kind: Kind, path: Path, why: str, run: str | None = None) -> Item:
    return Item(kind, path, disk_bytes([path]), why, run)


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@contextlib.contextmanager
def _unused(item: Item) -> Iterator[bool]:
    """Hold the lock of the run or server that an item belongs to; False where that goes on."""
    if item.kind in ("temporary", "unfinished"):
        yield True  # they have locks of their own
        return
    owner = home() / "runs" / item.run if item.run else item.path.parent
    try:
        lock = locks.take(owner / LOCK, patience_s=0.2)
    except (FileNotFoundError, NotADirectoryError):
        lock = None  # the folder is gone
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _remove(item: Item) -> bool:
    if item.kind == "temporary":
        return temporary.remove_if_stale(item.path)
    if item.kind == "unfinished":
        return files.remove_leftover(item.path)
    if item.path.is_dir() and not item.path.is_symlink():
        left = files.remove_folder(item.path)
        return not left.exists()
    item.path.unlink(missing_ok=True)
    return True
