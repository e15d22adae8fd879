"""Remove runs: whole, or not at all, and never one that goes on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names
from trainserve.local import ending
from trainserve.local.rundir import RunDir
from trainserve.machine.files import remove_folder
from trainserve.machine.usage import disk_bytes, size_words


@dataclass(frozen=True)
class Removed:
    """A run that is no longer there."""

    name: str
    folder: Path  # where it was
    freed: int  # bytes on the disk
    kept: Path | None = None  # the folder was a link to this one, which is still there


def sentence(removed: Removed) -> str:
    """What happened, for a person."""
    rest = f"; {removed.kept}, to which its folder was a link, is still there" if removed.kept else ""
    return f"{removed.name} removed, {size_words(removed.freed)} freed{rest}"


def refuse_going(run: RunDir) -> None:
    """Raises UserError for a run that goes on."""
    if run.alive():
        raise UserError(
            f"run {run.name!r} is going on: it is not removed",
            hint=f"platform cancel {run.name} stops it after a checkpoint; platform rm --force {run.name} kills it",
        )


def remove(run: RunDir, *, force: bool = False) -> Removed:
    """Remove the run's folder with everything in it: checkpoints, logs, bundle and archive.

    One rename takes it out of every list, so a part of a run is never a run; `gc` removes what a kill leaves after
    that. With `force` a run that goes on is killed first, without a checkpoint, which would go too. Raises UserError
    where it goes on, EnvironmentProblem where the disk refuses.
    """
    if force and run.alive():
        ending.stop(run, names.SUSPEND_BY_USER, grace_s=0)
        ending.settle(run, ending.SLACK_S)
    refuse_going(run)
    lock = run.lock()  # from here on nobody can start it
    try:
        ending.sweep(run)
        kept = run.path.resolve() if run.path.is_symlink() else None
        freed = disk_bytes([run.path])
        try:
            left = remove_folder(run.path)
        except OSError as error:
            raise EnvironmentProblem(
                f"run {run.name!r} cannot be removed: {run.path}: {error.strerror or error}",
                hint="nothing of it was removed",
            ) from error
    finally:
        os.close(lock)
    return Removed(run.name, run.path, freed - disk_bytes([left]), kept)
