"""The folders of a node's pods: logs outlive their pods, for a week."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path

from trainserve.kube.cluster import Manifest
from trainserve.machine.files import remove_folder

log = logging.getLogger(__name__)

KEPT_S = 7 * 24 * 3600.0
EVERY_S = 3600.0
LOOK_EVERY_S = 10.0
LEAST_BYTES = 1 << 20
LEAST_FILES = 16


def folder_name(pod: Manifest) -> str:
    """`<namespace>_<name>_<uid>`, as a kubelet calls it."""
    meta = pod["metadata"]
    return f"{meta['namespace']}_{meta['name']}_{meta['uid']}"


def outdated(pods: Path, there: Collection[str], now: float) -> list[Path]:
    """Folders of pods that are not `there` (uids) any more and in which nothing was written for a week."""
    gone = [path for path in pods.iterdir() if path.is_dir() and path.name.rpartition("_")[2] not in there]
    return sorted(path for path in gone if now - _last_written(path) > KEPT_S)


async def keep_tidy(pods: Path, there: Callable[[], Collection[str]], clock: Callable[[], float]) -> None:
    """Remove what is outdated, once an hour, until cancelled."""
    while True:
        await asyncio.sleep(EVERY_S)
        await asyncio.to_thread(tidy, pods, frozenset(there()), clock())


def tidy(pods: Path, there: Collection[str], now: float) -> None:
    """Remove what is outdated. What cannot be looked at or removed is told: a node does not end by it."""
    try:
        for path in outdated(pods, there, now):
            remove_folder(path)
            log.info("removed the logs of a pod that is gone for a week: %s", path.name)
    except OSError as error:
        log.warning("old logs of pods cannot be removed: %s; tried again in an hour", error)


class Room:
    """Tells once that the disk of the pods' folders is full, and once that it is no more.

    A program's output that cannot be written is lost without a word, and its last message too.
    """

    def __init__(self, pods: Path) -> None:
        self._pods = pods
        self._full = False

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        try:
            found = os.statvfs(self._pods)
        except OSError as error:
            log.debug("%s: %s", self._pods, error)  # what needs the folder says it
            return
        full = found.f_bavail * found.f_frsize < LEAST_BYTES or (found.f_files > 0 and found.f_favail < LEAST_FILES)
        if full and not self._full:
            log.warning(
                "%s is full: what pods write from now on is lost, their last messages too. hint: remove logs of old "
                "pods there, or run the node with another --root",
                self._pods,
            )
        elif self._full and not full:
            log.warning("%s has room again", self._pods)
        self._full = full


def _last_written(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in (folder, *folder.iterdir()))
