"""The short names of the spec's fields: what flags and a program's keyword values are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainserve.errors import UserError, nearest
from trainserve.spec.classifier import DataSpec, ModelSpec, ServeSpec, TrainSpec
from trainserve.spec.load import fields
from trainserve.spec.source import FieldPath, scalar

SECTIONS: dict[str, type[BaseModel]] = {"data": DataSpec, "model": ModelSpec, "train": TrainSpec, "serve": ServeSpec}
RENAMED = {"spec.data.path": "--data"}


def flag_fields(sections: Sequence[str]) -> dict[str, tuple[str, FieldInfo]]:
    """Flag -> (dotted field path, its FieldInfo), in the order of the types."""
    result: dict[str, tuple[str, FieldInfo]] = {}
    for section in sections:
        for path, info in fields(SECTIONS[section], ("spec", section)):
            dotted = ".".join(str(part) for part in path)
            result[RENAMED.get(dotted, _kebab(path))] = (dotted, info)
    return result


def from_keywords(values: Mapping[str, Any], *sections: str) -> dict[str, tuple[str, Any]]:
    """Keyword values (`batch_size=64`) as `load` takes them: dotted path -> (the keyword, value). None is not given.

    Raises UserError for a word that is no flag of these sections.
    """
    known = {flag[2:].replace("-", "_"): dotted for flag, (dotted, _) in flag_fields(sections).items()}
    result: dict[str, tuple[str, Any]] = {}
    for word, value in values.items():
        if word not in known:
            alike = nearest(word, known)
            raise UserError(
                f"no such value {word!r}" + (f", did you mean {alike!r}?" if alike else ""),
                hint=f"known are {', '.join(known)}",
            )
        if value is not None:
            plain = list(value) if isinstance(value, tuple) else str(value) if word in ("data", "weights") else value
            result[known[word]] = (word, plain)
    return result


def typed(dotted: str, value: Any, info: FieldInfo) -> Any:
    """A flag's text as the value that it means; what is no text already is one."""
    if not isinstance(value, str) or info.annotation in (str, str | None):
        return value
    parsed = scalar(value)
    if dotted.endswith("cropScale") and isinstance(parsed, str) and "," in parsed:
        return [scalar(part.strip()) for part in parsed.split(",")]
    return parsed


def _kebab(path: FieldPath) -> str:
    word = str(path[-1])
    return "--" + "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in word)
