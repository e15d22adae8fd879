"""Amounts of resources as Kubernetes writes them: "500m", "1.5", "64Gi".

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

_NUMBER = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,2})|([numkMGTPE]|[KMGTPE]i)?)")
_BINARY = {f"{letter}i": Fraction(1024) ** power for power, letter in enumerate("KMGTPE", 1)}
_SMALL = {letter: Fraction(1, 1000) ** power for power, letter in enumerate("mun", 1)}
_DECIMAL = {letter: Fraction(1000) ** power for power, letter in enumerate("kMGTPE", 1)}
_SCALE = {**_BINARY, **_SMALL, **_DECIMAL}


def parse(text: str | int | float) -> Fraction:
    """The exact amount. Raises ValueError for what is no quantity."""
    match = _NUMBER.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is no quantity, such as 2, 500m or 64Gi")
    number, exponent, suffix = match.groups()
    scale = Fraction(10) ** int(exponent) if exponent else _SCALE.get(suffix or "", Fraction(1))
    return Fraction(number) * scale


def total(amounts: Iterable[Mapping[str, Fraction]]) -> dict[str, Fraction]:
    """The sum of each resource."""
    found: dict[str, Fraction] = {}
    for each in amounts:
        for name, amount in each.items():
            found[name] = found.get(name, Fraction(0)) + amount
    return found


def written(amount: Fraction) -> str:
    """As an API server takes it: whole, or in thousandths, rounded up."""
    return str(amount) if amount.denominator == 1 else f"{-(-amount * 1000 // 1)}m"


def shown(resource: str, amount: Fraction) -> str:
    """For people: "16 cpu", "64 GiB memory", "4 x nvidia.com/gpu"; sizes are rounded down to a tenth."""
    if resource in {"memory", "ephemeral-storage"} or resource.startswith("hugepages-"):
        unit, size = next(
            ((f"{name}B", scale) for name, scale in reversed(_BINARY.items()) if amount >= scale), ("B", Fraction(1))
        )
        return f"{_rounded(amount / size)} {unit} {resource}"
    return f"{_rounded(amount)} {resource}" if resource == "cpu" else f"{_rounded(amount)} x {resource}"


def _rounded(amount: Fraction) -> str:
    return f"{amount * 10 // 1 / 10:.1f}".removesuffix(".0")
