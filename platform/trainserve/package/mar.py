"""A .mar: a bundle, the handler and its settings in one file for TorchServe.

Packed by torch-model-archiver, then normalised, so that it is a pure function of bundle, handler, name, version and
settings: two builds have one sha256.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.machine.files import publish, scratch_folder, sha256_of
from trainserve.machine.target import check_target
from trainserve.machine.usage import MIB, size_words
from trainserve.package import archive, description
from trainserve.package.bundle import read_bundle
from trainserve.package.description import ARCHITECTURE, EXPECTED, GOLDEN, MODEL_JSON, PREPROCESS, WEIGHTS, Golden
from trainserve.package.handler_source import HANDLER, handler_source
from trainserve.package.modelname import check_name, check_version
from trainserve.package.settings import model_config
from trainserve.spec.classifier import ServeSpec

SUFFIX = ".mar"
CONFIG = "model-config.yaml"
INDEX_TO_NAME = "index_to_name.json"
HINT = "make one with `platform package RUN -o FILE.mar`"
ZIP_HEAD = b"PK\x03\x04"
# What zipfile and zlib raise for bytes that are no archive, or not a whole one.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    struct.error,
    ValueError,
)
# Ours hold their files as they are; others may compress them, but not to almost nothing.
MOST_TIMES, MOST_MORE = 3, 64 * MIB
ARCHIVER = "from model_archiver.model_packaging import generate_model_archive as main; main()"


@dataclass(frozen=True)
class MarInfo:
    """What is in a .mar of ours."""

    path: Path
    name: str
    version: str
    description: description.ModelDescription
    golden: tuple[Golden, ...]

    def golden_picture(self, golden: Golden) -> bytes:
        """The bytes of one of the golden pictures."""
        with zipfile.ZipFile(self.path) as source:
            return source.read(f"{GOLDEN}/{golden.file}")


def build_mar(
    bundle: Path, destination: Path, *, name: str, version: str = "1.0", serve: ServeSpec | None = None
) -> str:
    """Pack the bundle in folder `bundle` as the file `destination` and return its sha256.

    `serve` replaces the bundle's own settings. Raises UserError for a wrong bundle, name or version, and
    EnvironmentProblem when torch-model-archiver is missing or fails.
    """
    check_name(name)
    check_version(version)
    check_target(destination, f"{name}.mar")
    if destination.suffix != SUFFIX:  # such as `-o json`, which is the format with other verbs
        raise UserError(
            f"{destination}: the name of an archive ends with {SUFFIX}",
            hint=f"-o {destination}{SUFFIX}, or leave -o out; how the result is printed is --output",
        )
    source = read_bundle(bundle)
    handler = handler_source()
    digests = {**source.description.digests, HANDLER: hashlib.sha256(handler).hexdigest()}
    settings = serve or source.description.serve
    model = source.description.model_copy(update={"serve": settings, "digests": digests})
    index_to_name = {str(index): label for index, label in enumerate(model.classes)}
    # A folder of its own: the archiver removes $TMPDIR/<model name>, whatever is in it, and splits paths at commas,
    # so it gets relative names only.
    with scratch_folder(destination) as folder:
        for sub in ("extra", "temporary", "out"):
            (folder / sub).mkdir()
        (folder / HANDLER).write_bytes(handler)
        (folder / CONFIG).write_text(model_config(settings), encoding="utf-8")
        (folder / "extra" / MODEL_JSON).write_bytes(model.to_json())
        (folder / "extra" / INDEX_TO_NAME).write_text(
            json.dumps(index_to_name, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        for file in source.description.digests:
            target = folder / file if file == WEIGHTS else folder / "extra" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((bundle / file).read_bytes())
        _run_archiver(folder, name, version)
        files = archive.entries(folder / "out" / f"{name}.mar")
        files[archive.MANIFEST] = archive.normalised_manifest(files[archive.MANIFEST])
        packed = folder / "packed.mar"
        archive.write(files, packed)
        digest = sha256_of(packed)
        publish(packed, destination)
    return digest


def _run_archiver(folder: Path, name: str, version: str) -> None:
    command = [sys.executable, "-c", ARCHIVER, "--model-name", name, "--version", version, "--handler", HANDLER]
    command += ["--serialized-file", WEIGHTS, "--extra-files", "extra", "--config-file", CONFIG]
    command += ["--archive-format", "zip-store", "--export-path", "out"]
    # Absolute, for it runs in `folder`: a TMPDIR that is not there would be /tmp, where it removes what has its name.
    environment = {**os.environ, "TMPDIR": str((folder / "temporary").absolute())}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        missing = "No module named 'model_archiver'" in done.stderr
        hint = "pip install 'trainserve[train]'" if missing else None
        raise EnvironmentProblem(f"torch-model-archiver failed: {last}", hint=hint)


def read_mar(path: Path) -> MarInfo:
    """What is in the .mar at `path`, every digest verified, nothing extracted.

    Raises UserError for a file that is missing, no zip, truncated, another kind of archive, or altered.
    """
    try:
        if not path.exists():
            raise UserError(f"{path}: no such file", hint=HINT)
        if path.is_dir():
            raise UserError(f"{path}: is a folder, not a .mar", hint=HINT)
        if not path.is_file():  # reading it may never end
            raise UserError(f"{path}: is a pipe or device, not a .mar", hint=HINT)
        with path.open("rb") as file:
            head, size = file.read(4), os.fstat(file.fileno()).st_size
            if not head:
                raise UserError(f"{path}: empty file, not a .mar", hint=HINT)
            try:
                with zipfile.ZipFile(file) as source:
                    return _read(path, source, size)
            except DAMAGE as error:
                kind = "a truncated or damaged .mar" if head == ZIP_HEAD else "not a .mar (which is a zip file)"
                raise UserError(f"{path}: {kind}: {str(error) or type(error).__name__}", hint=HINT) from None
    except PermissionError as error:
        raise EnvironmentProblem(f"{path}: cannot be read: {error.strerror}", hint="check its permissions") from None


def _read(path: Path, source: zipfile.ZipFile, size: int) -> MarInfo:
    names, places = set(), set()
    for item in source.infolist():
        name, place = item.filename, PurePosixPath(item.filename)
        if place.is_absolute() or "\\" in name or ".." in place.parts:
            raise UserError(f"{path}: refused: it holds a file named {name!r}, which would leave its folder", hint=HINT)
        if item.flag_bits & 0x1:
            raise UserError(f"{path}: refused: {name} is encrypted", hint=HINT)
        if place in places:  # who unpacks it decides which of them counts
            raise UserError(f"{path}: refused: it holds two files named {str(place)!r}", hint=HINT)
        names.add(name)
        places.add(place)
    unpacked = sum(item.file_size for item in source.infolist())
    if unpacked > MOST_TIMES * size + MOST_MORE:
        raise UserError(
            f"{path}: refused: unpacked it would have {size_words(unpacked)}, and it has {size_words(size)} itself",
            hint=HINT,
        )
    if archive.MANIFEST not in names:
        raise UserError(f"{path}: a zip file, but not a .mar: it has no {archive.MANIFEST}", hint=HINT)
    missing = sorted({MODEL_JSON, WEIGHTS, PREPROCESS, ARCHITECTURE, EXPECTED, HANDLER, CONFIG} - names)
    if missing:
        raise UserError(f"{path}: a .mar, but not one that this platform packed: it has no {missing[0]}", hint=HINT)
    name, version = _identity(path, source.read(archive.MANIFEST))
    model = description.parse(source.read(MODEL_JSON), f"{path}!{MODEL_JSON}")
    for file, digest in model.digests.items():
        if file not in names:
            raise UserError(f"{path}: incomplete: {file} is missing", hint=HINT)
        with source.open(file) as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:  # type: ignore[arg-type]
                raise UserError(f"{path}: {file} was altered after packing", hint=HINT)
    golden = description.parse_expected(source.read(EXPECTED), f"{path}!{EXPECTED}")
    for entry in golden:
        if f"{GOLDEN}/{entry.file}" not in names:
            raise UserError(f"{path}: incomplete: {GOLDEN}/{entry.file} is missing", hint=HINT)
    return MarInfo(path, name, version, model, tuple(golden))


def _identity(path: Path, manifest: bytes) -> tuple[str, str]:
    """Model name and version of a manifest."""
    try:
        model = json.loads(manifest)["model"]
        name, version = model["modelName"], model["modelVersion"]
        handler = model["handler"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: {archive.MANIFEST} names no model, version and handler", hint=HINT) from None
    if not isinstance(name, str) or not isinstance(version, str) or handler != HANDLER:
        raise UserError(f"{path}: a .mar, but not one that this platform packed: its handler is {handler!r}", hint=HINT)
    try:
        return check_name(name), check_version(version)
    except UserError as error:
        raise UserError(f"{path}: {archive.MANIFEST}: {error.message}", hint=HINT) from None
