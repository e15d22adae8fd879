"""The bytes of a .mar: a zip whose content alone decides its bytes. Pure apart from reading and writing the files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

MANIFEST = "MAR-INF/MANIFEST.json"
# torch-model-archiver writes the time of packing here; nothing reads it.
CREATED_ON = "01/01/1980 00:00:00"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


def entries(archive: Path) -> dict[str, bytes]:
    """Every file of a zip that we wrote ourselves, by name."""
    with zipfile.ZipFile(archive) as source:
        return {item.filename: source.read(item) for item in source.infolist() if not item.is_dir()}


def normalised_manifest(data: bytes) -> bytes:
    """The manifest without what differs between two packings of the same files."""
    manifest = json.loads(data)
    manifest["createdOn"] = CREATED_ON
    return json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n"


def write(files: Mapping[str, bytes], destination: Path) -> None:
    """Write a zip: names sorted, fixed times and permissions, nothing compressed.

    Weights shrink by 7 % only, pictures not at all, and another zlib would give other bytes.
    """
    with zipfile.ZipFile(destination, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            item = zipfile.ZipInfo(name, date_time=EPOCH)
            item.create_system = 3  # Unix, whose permissions follow
            item.external_attr = (0o100644) << 16
            archive.writestr(item, files[name])
