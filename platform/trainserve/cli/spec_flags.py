"""Flags made from the spec's types: one flag a field of the sections that a verb takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from trainserve.spec.flags import FILES, PAIRS, REPEATED, flag_fields, typed
from trainserve.spec.load import allowed

__all__ = ["flag_fields", "given", "spec_options"]


def spec_options(*sections: str, without: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds the flags of `sections`, but those in `without`, to a click command; `given` reads them."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for flag, (dotted, info) in reversed(flag_fields(sections).items()):
            if flag in without:
                continue
            if info.annotation is bool:
                option = click.option(f"{flag}/--no-{flag[2:]}", _parameter(flag), default=None, help=_help(info))
            elif dotted in REPEATED:
                option = click.option(
                    flag,
                    _parameter(flag),
                    metavar=_metavar(dotted, info),
                    multiple=True,
                    help=f"{_help(info)} Repeats.",
                )
            else:
                option = click.option(flag, _parameter(flag), metavar=_metavar(dotted, info), help=_help(info))
            command = option(command)
        return command

    return decorate


def given(values: Mapping[str, Any], *sections: str) -> dict[str, tuple[str, Any]]:
    """Of a command's keyword arguments, the spec flags that were typed: dotted path -> (flag, value)."""
    return {
        dotted: (flag, typed(flag, dotted, values[_parameter(flag)], info))
        for flag, (dotted, info) in flag_fields(sections).items()
        if values.get(_parameter(flag)) not in (None, ())
    }


def _parameter(flag: str) -> str:
    return "spec_" + flag[2:].replace("-", "_")


_METAVARS = {
    "spec.data.path": "DIR|URL",
    "spec.data.digest": "sha256:HEX",
    "spec.data.cache": "VOLUME",
    "spec.model.weights": "imagenet|FILE|RUN",
    "spec.train.nodes": "N|MIN:MAX",
    "spec.train.output": "VOLUME|URL",
    "spec.pod.tolerations": "KEY[=VALUE][:EFFECT]",
    "spec.pod.gpuResource": "NAME",
    "spec.pod.cpu": "AMOUNT",
    "spec.pod.memory": "AMOUNT",
    "spec.pod.sharedMemory": "AMOUNT",
    **dict.fromkeys(PAIRS, "NAME=VALUE"),
    **dict.fromkeys(FILES, "FILE"),
}


def _metavar(dotted: str, info: FieldInfo) -> str:
    if dotted in _METAVARS:
        return _METAVARS[dotted]
    if dotted in REPEATED:
        return "NAME"
    words = allowed(info)
    if words.startswith("one of "):
        return "|".join(words.removeprefix("one of ").removesuffix(" or null").split(", "))
    kinds: dict[Any, str] = {int: "N", float: "X", str: "TEXT", bool: ""}
    optional = type(None) in get_args(info.annotation)
    kind = next(k for k in get_args(info.annotation) if k is not type(None)) if optional else info.annotation
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return kinds.get(kind, "LOW,HIGH")


def _help(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True) if not info.is_required() else None
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    if default is None or info.is_required():
        return info.description or ""
    if isinstance(default, bool):
        return f"{info.description} [default: {'yes' if default else 'no'}]"
    return f"{info.description} [default: {shown}]"
