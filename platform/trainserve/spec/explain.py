"""What a field is, from the types: `platform explain`. Pure."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainserve import errors
from trainserve.errors import UserError
from trainserve.spec.classifier import Classifier
from trainserve.spec.flags import flag_fields
from trainserve.spec.load import allowed
from trainserve.spec.pytorchjob import PyTorchJob

Api = Literal["classifier", "pytorchjob"]
APIS: dict[Api, type[BaseModel]] = {"classifier": Classifier, "pytorchjob": PyTorchJob}
TITLES: dict[Api, str] = {
    "classifier": "Classifier, trainserve.dev/v1alpha1",
    "pytorchjob": "PyTorchJob, kubeflow.org/v1",
}


@dataclass(frozen=True)
class Explanation:
    """One field, or a section with its fields."""

    path: str  # from the object's root, as in a file: `spec.train.batchSize`
    type: str  # integer, number, text, true or false, one of ..., list, mapping, fields
    required: bool
    default: Any  # None: there is none, or what the description says
    allowed: str  # in words; empty for a section
    unit: str | None
    meaning: str
    flag: str | None  # verb and flag: `train --batch-size`
    fields: tuple[Explanation, ...] = ()  # of a section


def explain(path: str = "", api: Api = "classifier") -> Explanation:
    """The field at `path`, where `spec.` may be left out; "" is the whole object. Raises UserError with the nearest."""
    root = APIS[api]
    whole = Explanation("", "fields", True, None, "", None, _summary(root), None, tuple(_fields(root, "", api)))
    words = [word for word in path.strip().split(".") if word]
    if words and words[0].lower() == api:
        words = words[1:]
    found = _find(whole, words) or _find(whole, ["spec", *words])
    if found is None:
        raise UserError(
            f"{TITLES[api].split(',', maxsplit=1)[0]} has no field {path!r}{_guess(whole, words)}",
            hint="platform explain lists all fields" + (f" of this api: --api {api}" if api != "classifier" else ""),
        )
    return found


def leaves(section: Explanation) -> Iterator[Explanation]:
    """Every field below that holds a value, in order; the field itself when it does."""
    if not section.fields:
        yield section
    for field in section.fields:
        yield from leaves(field)


def _find(here: Explanation, words: list[str]) -> Explanation | None:
    if not words:
        return here
    for field in here.fields:
        if _plain(field.path.rsplit(".", 1)[-1]) == _plain(words[0]):
            return _find(field, words[1:])
    return None


def _guess(whole: Explanation, words: list[str]) -> str:
    """The same word elsewhere, else the most alike path."""
    every = [field.path for field in _all(whole)]
    last = _plain(words[-1])
    same = [path for path in every if _plain(path.rsplit(".", 1)[-1]) == last]
    known = {path.removeprefix("spec."): path for path in every}
    by_word = {_plain(path.rsplit(".", 1)[-1]): path for path in reversed(every)}
    near = same[0] if same else known.get(errors.nearest(".".join(words), known) or "")
    near = near or by_word.get(errors.nearest(last, by_word) or "")
    return f", did you mean {near}?" if near else ""


def _all(section: Explanation) -> Iterator[Explanation]:
    for field in section.fields:
        yield field
        yield from _all(field)


def _fields(model: type[BaseModel], prefix: str, api: Api) -> Iterator[Explanation]:
    flags = _flags() if api == "classifier" else {}
    for name, info in model.model_fields.items():
        path = f"{prefix}.{info.alias or name}" if prefix else info.alias or name
        nested, kinds = _nested(info.annotation)
        inside: tuple[Explanation, ...] = ()
        if nested is not None:
            inside = tuple(_fields(nested, path, api))
            if kinds:  # a mapping with known keys: each is a field
                inside = tuple(
                    Explanation(f"{path}.{key}", "fields", False, None, "", None, _summary(nested), None,
                                tuple(_fields(nested, f"{path}.{key}", api)))
                    for key in kinds
                )  # fmt: skip
        default = None if info.is_required() or inside else info.get_default(call_default_factory=True)
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        unit = extra.get("unit")
        yield Explanation(
            path,
            _type(info, nested),
            info.is_required(),
            list(default) if isinstance(default, tuple) else default,
            "" if inside else allowed(info),
            str(unit) if unit else None,
            info.description or "",
            flags.get(path),
            inside,
        )


def _flags() -> dict[str, str]:
    """Dotted path -> verb and flag."""
    verbs = {"train": ("data", "model", "train", "pod"), "package": ("serve",)}
    return {
        dotted: f"{verb} {flag}"
        for verb, sections in verbs.items()
        for flag, (dotted, _) in flag_fields(sections).items()
    }


def _nested(annotation: Any) -> tuple[type[BaseModel] | None, tuple[str, ...]]:
    """The model inside an annotation, and the known keys when it is a mapping to that model."""
    origin, args = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ()
    if origin in (Union, types.UnionType):
        return next((found for kind in args if (found := _nested(kind))[0]), (None, ()))
    if origin is list:
        return _nested(args[0])
    if origin is dict:
        keys = get_args(args[0]) if get_origin(args[0]) is Literal else ()
        model, _ = _nested(args[1])
        return (model, tuple(map(str, keys))) if model else (None, ())
    return None, ()


def _type(info: FieldInfo, nested: type[BaseModel] | None) -> str:
    union = get_origin(info.annotation) in (Union, types.UnionType)
    kinds = [_bare(kind) for kind in get_args(info.annotation) if kind is not type(None)] if union else []
    kinds = [each for kind in kinds or [_bare(info.annotation)] for each in _members(kind)]
    kind = kinds[0]
    if get_origin(kind) is Literal:
        return "word"
    if get_origin(kind) in (list, tuple):
        return "list of fields" if nested else "list"
    if nested:
        return "fields"
    names: dict[Any, str] = {int: "integer", float: "number", str: "text", bool: "true or false"}
    return " or ".join(names.get(kind, "mapping") for kind in kinds)


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _summary(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _plain(word: str) -> str:
    return word.replace("_", "").replace("-", "").lower()
