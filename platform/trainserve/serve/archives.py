"""The archives a server is to serve: under which name, with which limits, and unpacked; the same for both engines."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainserve.errors import UserError
from trainserve.package.mar import MarInfo, read_mar
from trainserve.package.modelname import check_name


@dataclass(frozen=True)
class ModelRef:
    """A .mar to serve, under its own name or another."""

    path: Path
    name: str | None = None


def read_models(models: Sequence[ModelRef]) -> dict[str, MarInfo]:
    """Served name -> archive, every digest verified. Raises UserError for a wrong archive or a name given twice."""
    archives: dict[str, MarInfo] = {}
    for model in models:
        mar = read_mar(model.path)
        served = check_name(model.name or mar.name)
        if served in archives:
            raise UserError(
                f"{model.path}: a model named {served!r} is already among those to serve ({archives[served].path})",
                hint="package one of them under another name",
            )
        archives[served] = mar
    if not archives:
        raise UserError("no model to serve", hint="platform serve FILE.mar [FILE.mar ...]")
    return archives


def max_upload_mib(models: Mapping[str, MarInfo]) -> int:
    """The largest upload limit of the models, in MiB."""
    return max(mar.description.serve.max_upload_mib for mar in models.values())


def unpack(mar: MarInfo, folder: Path) -> None:
    """Extract the archive into the new folder `folder`, which only this user may enter.

    `read_mar` has refused names that leave the folder. Digests are verified once more, on the bytes that are written:
    the file may have been replaced since. Raises UserError then.
    """
    folder.mkdir(mode=0o700, parents=True)
    try:
        with zipfile.ZipFile(mar.path) as source:
            for item in source.infolist():
                if item.is_dir():
                    continue
                data = source.read(item)
                expected = mar.description.digests.get(item.filename)
                if expected is not None and hashlib.sha256(data).hexdigest() != expected:
                    raise UserError(f"{mar.path}: {item.filename} changed while it was read", hint="serve it again")
                target = folder / item.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
    except (zipfile.BadZipFile, FileNotFoundError) as error:
        raise UserError(f"{mar.path}: changed while it was read: {error}", hint="serve it again") from None
