"""`platform explain`: what a field of a spec means, from the types."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import asdict
from typing import Any

import click

from trainserve.cli.complete import field_paths
from trainserve.cli.output import columns, emit, output_option
from trainserve.spec.explain import APIS, TITLES, Explanation, explain, leaves


@click.command("explain", short_help="Say what a field of a spec means.")
@click.argument("field", required=False, default="", shell_complete=field_paths)
@click.option("--api", type=click.Choice(list(APIS)), default="classifier", show_default=True, help="Of which object.")
@output_option()
def explain_command(field: str, api: Any, fmt: str) -> int:
    """Say what a field of a spec is: its type, unit, default, what is allowed, what it means.

    FIELD is a path such as train.batchSize, or a section such as train; without it all fields are listed.
    """
    found = explain(field, api)
    emit(fmt, _document(found), table=lambda: _text(found, api), names=[leaf.path for leaf in leaves(found)])
    return 0


def _document(found: Explanation) -> dict[str, Any]:
    document = asdict(found)
    document["fields"] = [_document(field) for field in found.fields]
    return document


def _text(found: Explanation, api: Any) -> str:
    if not found.path:
        rows = [
            {"field": leaf.path, "type": leaf.type, "default": _default(leaf), "flag": leaf.flag or ""}
            for leaf in leaves(found)
        ]
        return f"{TITLES[api]}\n\n{columns(rows)}"
    parts = [f"{TITLES[api]}\n{found.path}  <{found.type}>", _wrapped(found.meaning, "  ")]
    if found.fields:
        parts += [f"{_head(field)}\n{_wrapped(field.meaning, '      ')}" for field in found.fields]
    else:
        facts = {"allowed": found.allowed, "unit": found.unit, "default": _default(found), "flag": found.flag}
        parts.append("\n".join(f"  {word:8} {text}" for word, text in facts.items() if text))
    return "\n\n".join(part for part in parts if part)


def _head(field: Explanation) -> str:
    facts = [
        field.allowed,
        f"in {field.unit}" if field.unit else "",
        f"default {_default(field)}" if field.default is not None else "",
    ]
    facts += ["required"] if field.required else []
    return f"  {field.path.rsplit('.', 1)[-1]}  <{field.type}>  " + ", ".join(fact for fact in facts if fact)


def _default(field: Explanation) -> str:
    if field.required:
        return "required"
    if field.default is None or field.default in ({}, []):
        return ""
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)


def _wrapped(text: str, indent: str) -> str:
    width = min(shutil.get_terminal_size().columns, 110)
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)
