"""Whether a file that somebody has named can be written, asked before the work that it is for."""

from __future__ import annotations

import os
from pathlib import Path

from trainserve.errors import EnvironmentProblem, UserError


def check_target(path: Path, example: str, flag: str = "", *, in_folder: bool = False) -> None:
    """Raises UserError where `path` is a folder, a pipe or a device; `example` is the name of a file for the advice.

    And EnvironmentProblem where its folder is there and cannot be written to.

    To replace a device would be a disaster: `-o /dev/null` as root leaves a machine without it. `flag` is what the path
    was given with. With `in_folder` its folder must be there; others make it.
    """
    said = f"{flag} {path}".strip()
    if path.is_dir():
        raise UserError(f"{said}: is a folder; give a file such as {path / example}")
    if path.exists() and not path.is_file():
        raise UserError(f"{said}: is a pipe or device, not a file", hint=f"give a file such as {example}")
    parent = path.absolute().parent
    if in_folder and not parent.is_dir():
        raise UserError(f"{said}: there is no folder {path.parent}", hint="make it first")
    if parent.is_dir() and not os.access(parent, os.W_OK | os.X_OK):
        raise EnvironmentProblem(
            f"{said}: nothing can be written in {parent}",
            hint="it is read-only, or another user's: choose another place",
        )
