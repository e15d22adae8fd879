"""Flags made from the spec's types: one flag a field of the sections that a verb takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import click
from pydantic.fields import FieldInfo

from trainserve.spec.flags import flag_fields, typed
from trainserve.spec.load import allowed

__all__ = ["flag_fields", "given", "spec_options"]


def spec_options(*sections: str, without: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds the flags of `sections`, but those in `without`, to a click command; `given` reads them."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for flag, (_, info) in reversed(flag_fields(sections).items()):
            if flag in without:
                continue
            if info.annotation is bool:
                option = click.option(f"{flag}/--no-{flag[2:]}", _parameter(flag), default=None, help=_help(info))
            else:
                option = click.option(flag, _parameter(flag), metavar=_metavar(info), help=_help(info))
            command = option(command)
        return command

    return decorate


def given(values: Mapping[str, Any], *sections: str) -> dict[str, tuple[str, Any]]:
    """Of a command's keyword arguments, the spec flags that were typed: dotted path -> (flag, value)."""
    return {
        dotted: (flag, typed(dotted, values[_parameter(flag)], info))
        for flag, (dotted, info) in flag_fields(sections).items()
        if values.get(_parameter(flag)) is not None
    }


def _parameter(flag: str) -> str:
    return "spec_" + flag[2:].replace("-", "_")


def _metavar(info: FieldInfo) -> str:
    words = allowed(info)
    if words.startswith("one of "):
        return "|".join(words.removeprefix("one of ").split(", "))
    kinds: dict[Any, str] = {int: "N", float: "X", str: "TEXT", bool: ""}
    optional = type(None) in get_args(info.annotation)
    kind = next(k for k in get_args(info.annotation) if k is not type(None)) if optional else info.annotation
    return {"path": "DIR", "weights": "imagenet|FILE|RUN"}.get(info.alias or "", kinds.get(kind, "LOW,HIGH"))


def _help(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True) if not info.is_required() else None
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    if default is None or info.is_required():
        return info.description or ""
    if isinstance(default, bool):
        return f"{info.description} [default: {'yes' if default else 'no'}]"
    return f"{info.description} [default: {shown}]"
