"""From flags, `--set`, a file and defaults to one Classifier. One precedence: flag > --set > file > default.

All mistakes are found before anything starts and listed together, each with where it was written, the field's path,
the value and what is allowed.
"""

from __future__ import annotations

import json
import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from trainserve import errors
from trainserve.errors import SpecError
from trainserve.machine.home import expanded
from trainserve.spec import derive, location
from trainserve.spec.classifier import Classifier
from trainserve.spec.source import FieldPath, Source, read_file, scalar

API_VERSION = "trainserve.dev/v1alpha1"
_NOT_UTF_8 = "rename what has this name"
DEEPEST = 100  # fields in fields: the JSON parser takes 200, an API server more


def load(
    file: Path | Source | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, tuple[str, Any]] | None = None,
    name_for: Callable[[str], str] | None = None,
    defaults: Mapping[str, tuple[str, Any]] | None = None,
    rules: Callable[[Classifier], list[SpecError]] | None = None,
) -> Classifier:
    """The Classifier that these mean together.

    Args:
        file: a YAML file of a Classifier, whose relative paths are relative to its folder; or values read already.
        sets: `a.b=value` each; `spec.` may be left out; `null` goes back to the default.
        flags: dotted field path -> (the flag as typed, value).
        defaults: as `flags`, for fields that nothing else says; `--set FIELD=null` takes them out, too.
        rules: what else can be wrong between fields, told with the rest.
        name_for: makes `metadata.name` from the data folder's name where nobody gave one.

    Raises:
        SpecError: listing every mistake, each with its place.

    """
    source = read_file(file) if isinstance(file, Path) else file or Source("", {})
    values: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "Classifier", **source.values}
    origin: dict[FieldPath, str] = {}
    if isinstance(file, Path):
        _anchor_paths(values, file.parent)  # so that the file works from every folder
    for text in sets:
        dotted, equals, value = text.partition("=")
        if not equals or not all(dotted.strip().split(".")):
            raise SpecError(f"--set {text}: expected FIELD=VALUE", hint="for example --set train.epochs=3")
        path = _absolute(tuple(dotted.strip().split(".")))
        _put(values, path, scalar(value), f"--set {dotted.strip()}")  # the value may be a secret
        origin[path] = f"--set {dotted.strip()}"
    for dotted, (flag, value) in (flags or {}).items():
        path = tuple(dotted.split("."))
        _put(values, path, value, flag)
        origin[path] = flag
    for dotted, (where, value) in (defaults or {}).items():
        path = tuple(dotted.split("."))
        if path not in origin and _at(values, *dotted.split(".")) is None:
            _put(values, path, value, where)
            origin[path] = where
    _anchor_paths(values, Path())
    if (
        name_for is not None
        and _at(values, "metadata", "name") is None
        and isinstance(_at(values, "spec", "data", "path"), str)
    ):
        path = ("metadata", "name")
        _put(values, path, name_for(_name_of(_at(values, "spec", "data", "path"))), "--name")
        origin[path] = "--name"
    return validate(values, source, origin, rules)


def validate(
    values: Mapping[str, Any],
    source: Source,
    origin: Mapping[FieldPath, str],
    rules: Callable[[Classifier], list[SpecError]] | None = None,
) -> Classifier:
    """Validate raw values; `origin` says which fields came from a flag or --set and not from `source`."""
    if too_deep := _too_deep(values, ()):
        dotted = ".".join(str(part) for part in too_deep[:4])
        raise SpecError(
            f"{_head(too_deep, source, origin)}{dotted}: is nested more than {DEEPEST} deep",
            hint="nothing in a spec is: mend the file",
        )
    for path, word in _texts(values, ()):
        try:
            word.encode()
        except UnicodeEncodeError:
            dotted = ascii(".".join(str(part) for part in path))[1:-1]
            raise SpecError(
                f"{_head(path, source, origin)}{dotted}: {_raw(word)} is not UTF-8", hint=_NOT_UTF_8
            ) from None
    text = json.dumps(values)
    try:
        classifier = Classifier.model_validate_json(text, strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False)
        missing = {detail["loc"] for detail in details if detail["type"] == "missing"}
        if ("spec",) in missing:  # the name is the data folder's unless it is given: one word too few, not two
            details = [detail for detail in details if detail["loc"] != ("metadata",)]
        problems = [_problem(detail, source, origin) for detail in details]
        raise SpecError("\n".join(dict.fromkeys(problems)), hint=_hint(details)) from None
    wrong = [*derive.problems(classifier), *(rules(classifier) if rules else [])]
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        lines = [f"{each.message}; {each.hint}" if each.hint else each.message for each in wrong]
        raise SpecError("\n".join(lines), hint="platform explain FIELD says what a field means")
    return classifier


def _raw(word: str) -> str:
    """Bytes of a file's name that are no letters, or else the halves of pairs that a YAML file has by their numbers."""
    try:
        return repr(os.fsencode(word))
    except UnicodeEncodeError:
        return ascii(word)


def _too_deep(value: Any, path: FieldPath) -> FieldPath | None:
    """The path of something that lies deeper than anything does."""
    if len(path) > DEEPEST:
        return path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((found for key, child in children if (found := _too_deep(child, (*path, key)))), None)


def _texts(value: Any, path: FieldPath) -> Iterator[tuple[FieldPath, str]]:
    """Every text in `value`, keys too, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _texts(child, (*path, index))
    elif isinstance(value, dict):
        for key, child in value.items():
            yield (*path, key), str(key)
            yield from _texts(child, (*path, key))


def fields(model: type[BaseModel] = Classifier, prefix: FieldPath = ()) -> Iterator[tuple[FieldPath, FieldInfo]]:
    """Every leaf field's path (as in a file) and its pydantic FieldInfo, in order."""
    for name, info in model.model_fields.items():
        path = (*prefix, info.alias or name)
        nested = _model_of(info.annotation)
        if nested is not None:
            yield from fields(nested, path)
        else:
            yield path, info


def allowed(info: FieldInfo) -> str:
    """What a field accepts, in words: `an integer from 1 to 1024`, `one of none, bf16, fp16`."""
    if isinstance(info.json_schema_extra, dict) and "allowed" in info.json_schema_extra:
        return str(info.json_schema_extra["allowed"])
    optional = type(None) in get_args(info.annotation)
    kinds = [kind for kind in get_args(info.annotation) if kind is not type(None)] if optional else []
    kind = kinds[0] if kinds else info.annotation
    if get_origin(kind) is Literal:
        words = "one of " + ", ".join(str(value) or '""' for value in get_args(kind))
    elif get_origin(kind) is tuple:
        words = f"a list of {len(get_args(kind))} numbers"
    else:
        names: dict[Any, str] = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
        words = names.get(kind, "a mapping of texts" if get_origin(kind) is dict else "a mapping of fields")
    bounds = [text for constraint in info.metadata if (text := _bound(constraint))]
    return " ".join([words, " and ".join(bounds)] if bounds else [words]) + (" or null" if optional else "")


def _bound(constraint: object) -> str:
    match constraint:
        case annotated_types.Ge(ge=bound):
            return f">= {bound}"
        case annotated_types.Gt(gt=bound):
            return f"> {bound}"
        case annotated_types.Le(le=bound):
            return f"<= {bound}"
        case annotated_types.Lt(lt=bound):
            return f"< {bound}"
        case annotated_types.MaxLen(max_length=length):
            return f"of at most {length} letters"
        case annotated_types.MinLen(min_length=length):
            return f"of at least {length} letter" + ("s" if length > 1 else "")
    pattern = getattr(constraint, "pattern", None)
    return f"matching {pattern}" if pattern else ""


def _hint(details: Sequence[Any]) -> str:
    """Where to read on about the first wrong field."""
    path = tuple(part for part in details[0]["loc"] if isinstance(part, str))
    if path in {("spec",), ("spec", "data"), ("spec", "data", "path")}:
        return "platform train --data FOLDER, or -f FILE; platform explain lists every field"
    while path and not (path in dict(fields()) or _is_section(path)):
        path = path[:-1]
    return f"platform explain {'.'.join(path)}" if path else "platform explain lists every field"


def _problem(detail: Any, source: Source, origin: Mapping[FieldPath, str]) -> str:
    path = _field(tuple(detail["loc"]))
    head = f"{_head(path, source, origin)}{'.'.join(str(part) for part in path)}: "
    if detail["type"] == "extra_forbidden":
        near = nearest(path)
        return f"{head}no such field" + (f", did you mean {near}?" if near else "")
    if detail["type"] == "missing":
        flag = " (--name)" if path[0] == "metadata" else " (--data)" if path[0] == "spec" else ""
        return f"{head}is required{flag}"
    if detail["type"] == "value_error":
        return head + str(detail["ctx"]["error"])
    info = dict(fields()).get(tuple(part for part in path if isinstance(part, str)))
    words = allowed(info) if info else "a mapping of fields" if _is_section(path) else _kind(detail)
    return f"{head}{_shown(detail['input'])} is not allowed; allowed: {words}"


def _head(path: FieldPath, source: Source, origin: Mapping[FieldPath, str]) -> str:
    """Where the field was written, with a colon; nothing where that is not known."""
    where = next((origin[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origin), source.where(path))
    return f"{where}: " if where else ""


def _field(path: FieldPath) -> FieldPath:
    """Of a field that may be of several kinds there is an error for each, with the kind's name as the path's end."""
    info = dict(fields()).get(path[:-1]) if path and path[-1] in ("str", "int", "float") else None
    return path[:-1] if info is not None and path[-1] in {kind.__name__ for kind in _scalars(info.annotation)} else path


def _scalars(annotation: Any) -> Iterator[type]:
    if annotation in (str, int, float):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for kind in get_args(annotation):
            yield from _scalars(kind)


def _kind(detail: Any) -> str:
    """What is allowed within a field that is a list or a mapping."""
    if detail["type"] == "literal_error":
        return "one of " + str(detail["ctx"]["expected"]).replace("'", "").replace(" or ", ", ")
    kinds = {"string_type": "a text, in quotes where it looks like something else", "int_type": "an integer"}
    return kinds.get(detail["type"], str(detail["msg"]))


def nearest(path: FieldPath) -> str | None:
    """The field that was probably meant: the same word elsewhere or in another spelling, else the most alike one."""
    known = [tuple(str(part) for part in leaf) for leaf, _ in fields()]
    sections = {leaf[:n] for leaf in known for n in range(1, len(leaf))}
    candidates: list[tuple[str, ...]] = [*known, *sorted(sections)]
    wanted = _plain(str(path[-1]))
    synonyms = {"numnodes": "nodes", "numworkers": "workers", "learningrate": "lr", "batch": "batchsize"}
    wanted = synonyms.get(wanted, wanted)
    same = [leaf for leaf in candidates if _plain(leaf[-1]) == wanted]
    siblings = [leaf for leaf in candidates if leaf[:-1] == path[:-1]]
    if same:
        best = min(same, key=lambda leaf: (leaf not in siblings, len(leaf)))
        return ".".join(best)
    for pool in (siblings, candidates):
        words = {_plain(leaf[-1]): leaf for leaf in reversed(pool)}
        if close := errors.nearest(wanted, words):
            return ".".join(words[close])
    return None


def _plain(word: str) -> str:
    return word.replace("_", "").replace("-", "").lower()


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_section(path: FieldPath) -> bool:
    return any(leaf[: len(path)] == path and len(leaf) > len(path) for leaf, _ in fields())


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *(get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ())):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _absolute(path: tuple[str, ...]) -> FieldPath:
    return path if path[0] in ("metadata", "spec", "apiVersion", "kind") else ("spec", *path)


def _put(values: dict[str, Any], path: FieldPath, value: Any, flag: str) -> None:
    here = values
    for part in path[:-1]:
        child = here.get(str(part))
        if child is None:
            child = {}
        if not isinstance(child, dict):
            raise SpecError(
                f"{flag}: {'.'.join(map(str, path))}: {part} is not a mapping of fields",
                hint=f"platform explain {part}",
            )
        here[str(part)] = here = dict(child)
    if value is None:
        here.pop(str(path[-1]), None)
    else:
        here[str(path[-1])] = value


def _at(values: Any, *path: str) -> Any:
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _name_of(path: str) -> str:
    try:
        return location.name_of(location.parse(path))
    except ValueError:  # told by the field's own rule
        return PurePath(path).name


def _anchor_paths(values: dict[str, Any], folder: Path) -> None:
    """Relative paths become absolute: pods do not run where the command does. A word alone may be a run's name."""
    data, weights = ("spec", "data", "path"), ("spec", "model", "weights")
    for field in (data, weights):
        path = _at(values, *field)
        if not isinstance(path, str) or not path or "://" in path:
            continue
        if field == data or "/" in path or path.endswith((".safetensors", ".pth", ".pt")):
            _put(values, field, str((folder / expanded(path)).absolute()), "")
