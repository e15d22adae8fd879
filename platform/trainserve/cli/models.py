"""What a user means by RUN, a bundle's folder or a .mar file."""

from __future__ import annotations

from pathlib import Path

from trainserve.errors import UserError
from trainserve.kube.names import FAILED, INTERRUPTED, SUCCEEDED, SUSPENDED
from trainserve.local import rundir


def bundle_of(word: str) -> tuple[str, Path]:
    """(name, folder of the bundle) of a finished run or of a bundle's folder.

    Raises UserError where there is neither, or the run has no bundle yet.
    """
    folder = Path(word)
    if (folder / "model.json").is_file():
        return folder.absolute().name, folder
    run = rundir.open_run(word)
    bundle = run.output / "bundle"
    if not bundle.is_dir():
        raise UserError(
            f"run {run.name!r} has no bundle: its state is {run.state()}", hint=_hint(run.name, run.state())
        )
    return run.name, bundle


def archive_of(word: str) -> Path:
    """The .mar file of a finished run, or the file itself. Raises UserError."""
    path = Path(word)
    if path.suffix == ".mar" or path.is_file():
        return path
    run = rundir.open_run(word)
    archive = run.output / f"{run.name}.mar"
    if not archive.is_file():
        raise UserError(
            f"run {run.name!r} has no archive: its state is {run.state()}", hint=_hint(run.name, run.state())
        )
    return archive


def _hint(name: str, state: str) -> str:
    if state in (SUSPENDED, INTERRUPTED, FAILED):
        return f"platform train --resume {name}"
    return f"platform package {name}" if state == SUCCEEDED else f"platform status {name}"
