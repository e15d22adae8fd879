"""What a user means by RUN, a bundle's folder or a .mar file; a finished run as an archive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainserve.errors import UserError
from trainserve.kube.names import FAILED, INTERRUPTED, SUCCEEDED, SUSPENDED
from trainserve.local import rundir


@dataclass(frozen=True)
class Archive:
    """A .mar that was written."""

    path: Path  # as it was asked for
    name: str  # of the model on a server
    version: str
    classes: int
    sha256: str


def bundle_of(word: str | Path) -> tuple[str, Path]:
    """(name, folder of the bundle) of a finished run or of a bundle's folder.

    Raises UserError where there is neither, or the run has no bundle yet.
    """
    folder = Path(word)
    if str(word) == "":  # which pathlib takes for the current folder
        raise UserError("'' is no run and no bundle", hint="platform list shows all runs")
    if (folder / "model.json").is_file():
        return folder.absolute().name, folder
    try:
        run = rundir.open_run(str(word))
    except UserError:
        if folder.is_dir():
            hint = "a finished run has its bundle in output/bundle"
            raise UserError(f"{folder}: neither a run nor a bundle: it has no model.json", hint=hint) from None
        raise
    bundle = run.output / "bundle"
    if not bundle.is_dir():
        raise UserError(
            f"run {run.name!r} has no bundle: its state is {run.state()}", hint=_hint(run.name, run.state())
        )
    return run.name, bundle


def archive_of(word: str | Path) -> Path:
    """The .mar file of a finished run, or the file itself. Raises UserError."""
    path = Path(word)
    if path.suffix == ".mar" or path.is_file():
        return path
    run = rundir.open_run(str(word))
    archive = run.output / f"{run.name}.mar"
    if not archive.is_file():
        raise UserError(
            f"run {run.name!r} has no archive: its state is {run.state()}", hint=_hint(run.name, run.state())
        )
    return archive


def package(
    word: str | Path, out: Path | None, *, name: str | None, version: str, flags: Mapping[str, tuple[str, Any]]
) -> Archive:
    """Pack a finished run, or a bundle's folder, into a .mar; `out` is NAME.mar unless given.

    `flags` (dotted path -> (as typed, value)) go over the settings that the bundle has. Raises UserError, SpecError.
    """
    from trainserve.package import mar
    from trainserve.package.bundle import read_bundle  # imports torch
    from trainserve.spec.load import load
    from trainserve.spec.source import Source

    run_name, bundle = bundle_of(word)
    name = run_name if name is None else name
    description = read_bundle(bundle).description
    settings = json.loads(description.serve.model_dump_json(by_alias=True, exclude_none=True))
    # The bundle's own settings, with the flags over them, through the one loader that knows every rule.
    own = {"metadata": {"name": "model"}, "spec": {"data": {"path": "-"}, "serve": settings}}
    serve = load(Source(str(bundle), own), (), flags).spec.serve
    destination = out or Path(f"{name}.mar")
    digest = mar.build_mar(bundle, destination, name=name, version=version, serve=serve)
    return Archive(destination, name, version, len(description.classes), digest)


def _hint(name: str, state: str) -> str:
    if state in (SUSPENDED, INTERRUPTED, FAILED):
        return f"platform resume {name}"
    return f"platform package {name}" if state == SUCCEEDED else f"platform status {name}"
