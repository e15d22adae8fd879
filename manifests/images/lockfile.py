"""Of `requirements.lock`, the part that some extras need. Pure: texts in, lines out.

The lock file has one block a package: its version with a marker, its hashes, and after `# via` who needs it. Read
backwards those are the edges from a package to what it needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# What only the CUDA build of torch needs: a build from an index of CPU wheels goes without.
OF_CUDA = re.compile(r"(nvidia|cuda)-.*|triton")
OF_TORCH = ("torch", "torchvision")  # they come from one index, as they are linked against each other


@dataclass(frozen=True)
class Locked:
    """One package: `blocks` as they stand in the lock file, without comments; `version` is that of the last one.

    There are several where Pythons or systems get different versions: a marker says which.
    """

    name: str
    version: str
    blocks: tuple[tuple[str, ...], ...]
    needed_by: frozenset[str]


def read(text: str) -> dict[str, Locked]:
    """Every package of a lock file by its name."""
    found: dict[str, Locked] = {}
    for block in re.split(r"\n(?=[a-z0-9])", "\n" + text):
        lines = block.strip("\n").splitlines()
        match = re.match(r"([a-z0-9-]+)(?:\[[^]]*\])?==([^ ;\\]+)", lines[0]) if lines else None
        if match is None:
            continue
        comments = [line.strip().lstrip("#").strip() for line in lines if line.strip().startswith("#")]
        users = {normal(word.removeprefix("via").strip()) for word in comments} - {""}
        rest = [line.rstrip(" \\") for line in lines if line.strip() and not line.strip().startswith("#")]
        before = found.get(match[1], Locked(match[1], "", (), frozenset()))
        found[match[1]] = Locked(match[1], match[2], (*before.blocks, tuple(rest)), before.needed_by | users)
    return found


def normal(requirement: str) -> str:
    """The name in a requirement, as package indexes compare it."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def wanted(project: Mapping[str, Any], extras: Iterable[str]) -> list[str]:
    """Names of what the project itself asks for with these extras. Raises ValueError for one that there is not."""
    table = project["project"]
    optional = table["optional-dependencies"]
    asked = list(table["dependencies"])
    for extra in extras:
        if extra not in optional:
            raise ValueError(f"no such extra {extra!r}: pyproject.toml has {', '.join(optional)}")
        asked += optional[extra]
    return [normal(each) for each in asked]


def closure(locked: Mapping[str, Locked], roots: Iterable[str], *, cuda: bool = True) -> list[Locked]:
    """`roots` and all that they need, by name. Raises ValueError where the lock file lacks one of `roots`.

    Without `cuda` what torch's CUDA build alone needs is left out.
    """
    needs: dict[str, set[str]] = {}
    for package in locked.values():
        for user in package.needed_by:
            needs.setdefault(user, set()).add(package.name)
    todo, found = list(roots), set[str]()
    while todo:
        name = todo.pop()
        if name in found or (not cuda and OF_CUDA.fullmatch(name)):
            continue
        if name not in locked:
            raise ValueError(f"requirements.lock has no {name}: run make generate")
        found.add(name)
        todo += needs.get(name, ())
    return [locked[name] for name in sorted(found)]


def as_requirements(packages: Iterable[Locked]) -> str:
    """A requirements file with hashes."""
    return "".join(" \\\n".join(block) + "\n" for package in packages for block in package.blocks)
