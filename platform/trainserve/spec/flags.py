"""The short names of the spec's fields: what flags and a program's keyword values are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainserve.errors import SpecError, UserError, nearest
from trainserve.spec.classifier import DataSpec, ModelSpec, ServeSpec, TrainSpec
from trainserve.spec.load import fields
from trainserve.spec.pod import PodSpec
from trainserve.spec.source import FieldPath, read_file, scalar

SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataSpec,
    "model": ModelSpec,
    "train": TrainSpec,
    "serve": ServeSpec,
    "pod": PodSpec,
}
RENAMED = {
    "spec.data.path": "--data",
    "spec.data.digest": "--data-digest",
    "spec.data.cache": "--data-cache",
    "spec.pod.resourceClaimTemplates": "--resource-claim",
    "spec.pod.tolerations": "--toleration",
    "spec.pod.pullSecrets": "--pull-secret",
}
PAIRS = ("spec.pod.nodeSelector", "spec.pod.env")  # mappings: NAME=VALUE, and the flag repeats
LISTS = (
    "spec.pod.resourceClaimTemplates",
    "spec.pod.tolerations",
    "spec.pod.pullSecrets",
    "spec.pod.envFrom",
)  # the flag repeats
FILES = ("spec.pod.affinity", "spec.pod.overlay")  # mappings that a YAML file holds
REPEATED = (*PAIRS, *LISTS)


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
            plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
            result[known[word]] = (word, plain)
    return result


def typed(flag: str, dotted: str, value: Any, info: FieldInfo) -> Any:
    """A flag's text as the value that it means; what is no text already is one. Raises UserError, SpecError."""
    if dotted in PAIRS:
        return dict(_pair(flag, text) for text in value)
    if dotted == "spec.pod.tolerations":
        return [_toleration(flag, text) for text in value]
    if dotted in LISTS:
        return list(value)
    if dotted in FILES:
        return _file(flag, dotted, str(value))
    if not isinstance(value, str) or _is_text(info):
        return value
    parsed = scalar(value)
    if dotted.endswith("cropScale") and isinstance(parsed, str) and "," in parsed:
        return [scalar(part.strip()) for part in parsed.split(",")]
    return parsed


def _is_text(info: FieldInfo) -> bool:
    kinds = {kind for kind in get_args(info.annotation) if kind is not type(None)} or {info.annotation}
    return all(kind is str or (get_origin(kind) is Annotated and get_args(kind)[0] is str) for kind in kinds)


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:  # what stands after the = may be a secret
        raise UserError(
            f"{flag} {name!r:.80}: expected NAME=VALUE", hint=f"for several repeat it: {flag} A=1 {flag} B=2"
        )
    return name, value


def _file(flag: str, dotted: str, path: str) -> dict[str, Any]:
    hint = f"{flag} FILE, a YAML file; platform explain {dotted} says of what"
    if not path:
        raise SpecError(f"{flag} '': is no file", hint=hint)
    try:
        return read_file(Path(path)).values
    except SpecError as error:
        raise SpecError(f"{flag}: {error.message}", hint=hint) from None


def _toleration(flag: str, text: str) -> dict[str, str]:
    """KEY[=VALUE][:EFFECT], as a taint is written for kubectl."""
    if not text:  # Kubernetes would take it for every taint
        raise UserError(f"{flag} '': names no taint", hint=f"{flag} KEY[=VALUE][:EFFECT]")
    taint, _, effect = text.partition(":")
    key, equals, value = taint.partition("=")
    found = {"key": key, "operator": "Equal" if equals else "Exists"}
    return {**found, **({"value": value} if equals else {}), **({"effect": effect} if effect else {})}


def _kebab(path: FieldPath) -> str:
    word = str(path[-1])
    return "--" + "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in word)
