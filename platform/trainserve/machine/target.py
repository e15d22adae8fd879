"""Whether a file that somebody has named can be written, asked before the work that it is for."""

from __future__ import annotations

import os
from pathlib import Path

from trainserve.errors import EnvironmentProblem, UserError


def check_target(
    path: Path, example: str, flag: str = "", *, in_folder: bool = False, source: Path | None = None
) -> None:
    """Raises UserError where `path` is a folder, a pipe or a device; `example` is the name of a file for the advice.

    And EnvironmentProblem where its folder is there and cannot be written to.

    To replace a device would be a disaster: `-o /dev/null` as root leaves a machine without it. `flag` is what the path
    was given with. With `in_folder` its folder must be there; others make it. `source` is a file that is read for it,
    and not to be replaced.
    """
    said = f"{flag} {path}".strip()
    if path.is_dir():
        raise UserError(f"{said}: is a folder; give a file such as {path / example}")
    if path.exists() and not path.is_file():
        raise UserError(f"{said}: is a pipe or device, not a file", hint=f"give a file such as {example}")
    if source is not None and source.is_file() and path.exists() and path.samefile(source):
        raise UserError(f"{said}: is what is read", hint=f"give another file, such as {path.with_name(example)}")
    parent = path.absolute().parent
    if in_folder and not parent.is_dir():
        raise UserError(f"{said}: there is no folder {path.parent}", hint="make it first")
    check_place(path, said)


def check_place(path: Path, said: str = "") -> None:
    """Whether something can be made as `path`, in whose place nothing is; its folders are made too. `said`: the words.

    Raises UserError where a file is in a folder's place, EnvironmentProblem where nothing can be written.
    """
    said = said or str(path)
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise UserError(f"{said}: {there} is a file, not a folder", hint="choose another place, or move it away")
    if not os.access(there, os.W_OK | os.X_OK):
        raise EnvironmentProblem(
            f"{said}: nothing can be written in {there}",
            hint="it is read-only, or another user's: choose another place",
        )
