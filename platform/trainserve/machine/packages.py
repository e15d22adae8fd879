"""Which packages of an extra are installed, by what the installed `trainserve` says that it needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import metadata

from trainserve.machine.check import Check

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?\s*\(?(?P<limits>[^;)]*)\)?\s*(;(?P<marker>.*))?")
_EXTRA = re.compile(r"extra\s*==\s*[\"'](?P<extra>[^\"']+)[\"']")
_LIMIT = re.compile(r"(>=|==|>|<=|<)\s*([0-9][0-9.]*)")


def requirements(extra: str, requires: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """(package, its limits such as `>=2.6`) of an extra; "" is what is always needed."""
    lines = metadata.requires("trainserve") or [] if requires is None else requires
    found = []
    for line in lines:
        match = _REQUIREMENT.fullmatch(line.strip())
        if match is None:
            continue
        named = _EXTRA.search(match["marker"] or "")
        if (named["extra"] if named else "") == extra:
            found.append((match["name"], match["limits"].strip()))
    return found


def check(
    extra: str,
    use: str,
    *,
    required: bool,
    version_of: Callable[[str], str] = metadata.version,
    requires: Sequence[str] | None = None,
) -> Check:
    """All packages of an extra in one line: those that lack or are too old, else all with their versions."""
    name = f"packages [{extra}]" if extra else "packages"
    target = f"trainserve[{extra}]" if extra else "trainserve"
    have, lack = [], []
    try:
        wanted = requirements(extra, requires)
    except metadata.PackageNotFoundError:
        return Check(name, "warning", "trainserve itself is not installed: nothing says what it needs", use,
                     required=required, fix="pip install . in a clone")  # fmt: skip
    if not wanted:
        found = f"the installed trainserve knows no extra {extra!r}: it is older than this code"
        return Check(name, "warning", found, use, required=required, fix=f"install it again: pip install '{target}'")
    for package, limits in wanted:
        try:
            version = version_of(package)
        except metadata.PackageNotFoundError:
            lack.append(package)
            continue
        if satisfies(version, limits):
            have.append(f"{package} {version}")
        else:
            lack.append(f"{package} {version}, wanted {limits}")
    if lack:
        return Check(
            name, "missing", "not here: " + "; ".join(lack), use, required=required, fix=f"pip install '{target}'"
        )
    return Check(name, "ok", ", ".join(have), use, required=required)


def satisfies(version: str, limits: str) -> bool:
    """Whether a version lies within limits such as `>=1.2,<3`; what is no number of it (rc1, +cu132) does not count."""
    number = _number(version)
    for operator, text in _LIMIT.findall(limits):
        bound = _number(text)
        length = max(len(number), len(bound))
        ours, its = (each + (0,) * (length - len(each)) for each in (number, bound))
        fits = {">=": ours >= its, "==": ours == its, ">": ours > its, "<=": ours <= its, "<": ours < its}
        if not fits[operator]:
            return False
    return True


def _number(text: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
