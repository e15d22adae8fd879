"""Ways in which disks and hands damage the files of a run's folder; which, a seed says."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

FILES = (
    "objects.json",
    "job.json",
    "supervisor.json",
    "classifier.yaml",
    "lock",
    "pods",
    "output",
    "output/events.jsonl",
    "output/data-check.json",
)
CONTENTS = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"half',
    b"\xff\xfe\0",
    b"[" * 100_000,
    b"NaN",
    b'{"objects": [null]}',
    b"a: [",
)
VALUES: tuple[Any, ...] = (None, 0, -1, 1e300, 10**30, True, "x", "", "\u00e9\n\x1b[31m", [], {}, [None], {"a": None})


def damage(run: Path, seed: int) -> str:
    """Damage one file or folder of a run; returns what was done."""
    chance = random.Random(seed)
    path = run / chance.choice(FILES)
    how = chance.choice(("value", "value", "value", "contents", "half", "folder", "loop", "nowhere", "gone"))
    if how in ("value", "half") and not path.is_file():
        how = "gone"
    if how == "half":
        data = path.read_bytes()
        path.write_bytes(data[: chance.randrange(len(data) + 1)])
    elif how == "value":
        how = _other_value(path, chance)
    else:
        _remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if how == "contents":
            path.write_bytes(chance.choice(CONTENTS))
        elif how == "folder":
            path.mkdir()
        elif how != "gone":
            path.symlink_to(path.name if how == "loop" else "/nowhere/at/all")
    return f"seed {seed}: {path.name}: {how}"


def _other_value(path: Path, chance: random.Random) -> str:
    """One value of a JSON file, or of the first line of several, becomes another, or goes."""
    first, _, rest = path.read_bytes().partition(b"\n") if path.suffix == ".jsonl" else (path.read_bytes(), b"", b"")
    try:
        document = json.loads(first)
    except ValueError:
        path.write_bytes(b"{")
        return "no JSON"
    places = list(_places(document))
    if not places:
        return "nothing in it"
    parent, key = chance.choice(places)
    value = chance.choice(VALUES)
    if chance.random() < 0.3:
        del parent[key]
        value = "gone"
    else:
        parent[key] = value
    path.write_bytes(json.dumps(document).encode() + b"\n" + rest)
    return f"{key}: {value!r}"


def _places(node: Any) -> Any:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in list(pairs):
        yield node, key
        yield from _places(child)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
