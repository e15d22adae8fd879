"""What a user means by RUN, a bundle's folder or a .mar file; a finished run as an archive."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainserve.client.cluster import naming
from trainserve.client.listener import Listener
from trainserve.client.runs import CLUSTER_SCHEME
from trainserve.errors import UserError
from trainserve.kube.names import FAILED, INTERRUPTED, SUCCEEDED, SUSPENDED
from trainserve.local import rundir
from trainserve.local.rundir import RunDir
from trainserve.package.description import MODEL_JSON

if TYPE_CHECKING:
    from trainserve.client.cluster.run import ClusterRun


@dataclass(frozen=True)
class Archive:
    """A .mar that was written."""

    path: Path  # as it was asked for
    name: str  # of the model on a server
    version: str
    classes: int
    sha256: str


@dataclass(frozen=True)
class ModelSource:
    """Where a model is: exactly one of `archive`, `bundle` and `run`."""

    name: str  # of the run, or of the file or folder
    archive: Path | None = None  # a file, or what is called like one
    bundle: Path | None = None  # a folder with a model.json
    run: RunDir | None = None
    packed: Path | None = None  # of a run on a cluster, beside its bundle: the archive, where there is one


def cluster_run(word: str | Path) -> ClusterRun | None:
    """The run on a cluster that a word means where a model is asked for: `k8s://...`, or a bare name that is no file.

    Nobody is asked whether there is one. Raises UserError for what can be no name.
    """
    text, path = str(word), Path(word)
    if text.startswith(CLUSTER_SCHEME):
        return naming.find(text)
    return None if "/" in text or path.suffix == ".mar" or path.exists() else naming.find(text)


def find_model(word: str | Path) -> ModelSource:
    """What a user means by a word: `local://NAME` is a run, what ends with .mar an archive.

    Else a folder with a model.json is a bundle, a run's name is the run, and any other file is to be an archive. Raises
    UserError for what is none of these.
    """
    text, path = str(word), Path(word)
    if text == "":  # which pathlib takes for the current folder
        raise UserError("'' is no run and no bundle", hint="platform list shows all runs")
    if text.startswith(rundir.SCHEME):
        run = rundir.open_run(text)
        return ModelSource(run.name, run=run)
    if on_cluster := cluster_run(word):
        return _on_cluster(on_cluster)
    if path.suffix == ".mar":
        return ModelSource(path.stem, archive=path)
    if (path / MODEL_JSON).is_file():
        return ModelSource(path.absolute().name, bundle=path)
    try:
        run = rundir.open_run(text)
    except UserError:
        if path.is_dir():
            hint = "a finished run has its bundle in output/bundle"
            raise UserError(f"{path}: neither a run nor a bundle: it has no {MODEL_JSON}", hint=hint) from None
        if path.exists():
            return ModelSource(path.stem, archive=path)
        if "/" in text and "://" not in text:
            raise UserError(f"{text}: no such file or folder", hint="a run's name, a bundle's folder, a .mar") from None
        raise
    return ModelSource(run.name, run=run)


def _on_cluster(run: ClusterRun) -> ModelSource:
    """The bundle of a run on a cluster, fetched from its output; where it has none yet, what there is says so."""
    from trainserve.client.cluster.outputs import fetched

    bundle = fetched(run, Listener()).folder / "bundle"
    if not (bundle / MODEL_JSON).is_file():
        raise UserError(f"run {str(run)!r} has no bundle yet", hint=f"platform wait {run}")
    packed = bundle.parent / f"{run.name}.mar"
    return ModelSource(run.name, bundle=bundle, packed=packed if packed.is_file() else None)


def bundle_of(word: str | Path) -> tuple[str, Path]:
    """(name, folder of the bundle) of a finished run or of a bundle's folder.

    Raises UserError where there is neither, or the run has no bundle yet.
    """
    found = find_model(word)
    if found.archive is not None:
        what = "a file, neither a run nor a bundle" if found.archive.exists() else "no such file, run or bundle"
        raise UserError(f"{word}: {what}", hint="give a run's name, or the folder of a bundle")
    if found.run is None:
        assert found.bundle is not None
        return found.name, found.bundle
    bundle = found.run.output / "bundle"
    if not bundle.is_dir():
        raise _nothing(found.run, "bundle")
    return found.name, bundle


def archive_of(word: str | Path) -> Path:
    """The .mar file of a finished run, or the file itself. Raises UserError."""
    found = find_model(word)
    if found.archive is not None:
        return found.archive
    if found.packed is not None:
        return found.packed
    if found.run is None:
        raise UserError(f"{word}: a bundle, and not packed yet", hint=shlex.join(["platform", "package", str(word)]))
    archive = found.run.output / f"{found.name}.mar"
    if not archive.is_file():
        raise _nothing(found.run, "archive")
    return archive


def _nothing(run: RunDir, what: str) -> UserError:
    """What to say of a run without bundle or archive."""
    state = run.state()
    return UserError(f"run {run.name!r} has no {what}: its state is {state}", hint=_hint(run.name, state))


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
