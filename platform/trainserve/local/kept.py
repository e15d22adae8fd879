"""The checkpoints of a run as folders, looked at without torch (train/checkpoint.py writes and reads them)."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = "checkpoints"
_PREFIX, _TORN = "step-", "torn-"


def checkpoints(output: Path) -> list[Path]:
    """Folders of checkpoints, newest first."""
    found = (output / FOLDER).glob(f"{_PREFIX}*")
    return sorted((path for path in found if path.name[len(_PREFIX) :].isdigit()), reverse=True)


def torn(output: Path) -> list[Path]:
    """What was found torn and set aside."""
    return sorted((output / FOLDER).glob(f"{_TORN}{_PREFIX}*"))


def best(output: Path) -> str | None:
    """The name of the best one, as the newest whose meta.json can be read says; None where none does."""
    for folder in checkpoints(output):
        try:
            meta = json.loads((folder / "meta.json").read_bytes())
            named = meta["best"]
            return str(named["checkpoint"]) if named else None
        except (OSError, ValueError, KeyError, TypeError):
            continue  # torn
    return None
