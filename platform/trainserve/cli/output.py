"""How results are printed: `-o table|json|yaml|name`. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import click

from trainserve.observe.words import duration, percent
from trainserve.spec.write import to_yaml

__all__ = [
    "FORMATS",
    "camel",
    "columns",
    "duration",
    "emit",
    "output_option",
    "percent",
    "printable",
    "say",
    "silence",
    "to_yaml",
]

# What a terminal obeys instead of showing it: control characters, and those that turn the direction of writing.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

FORMATS = ("table", "json", "yaml", "name")


def output_option(*formats: str, short: bool = False) -> Callable[[Any], Any]:
    """The option `-o`, with the formats that the verb has (default: all); `short` where --output is something else."""
    choices = formats or FORMATS
    words = ["-o"] if short else ["-o", "--output"]
    return click.option(
        *words, "fmt", type=click.Choice(choices), default=choices[0], show_default=True, help="Format."
    )


def printable(text: str) -> str:
    """`text` for a terminal, whoever has written it: messages and names of a cluster are other people's words."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def say(text: str) -> None:
    """Talk: to stderr."""
    click.echo(printable(text), err=True)


def emit(
    fmt: str,
    value: Any,
    *,
    table: Callable[[], str],
    names: Sequence[str] = (),
) -> None:
    """Print `value` in the format asked for; `table` renders the readable form.

    A reader that has gone, such as `head`, changes nothing: the verb goes on to its own exit code.
    """
    try:
        _print(fmt, value, table, names)
    except BrokenPipeError:
        silence(sys.stdout)


def silence(*streams: TextIO) -> None:
    """What is still written to these goes nowhere, and raises nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _print(fmt: str, value: Any, table: Callable[[], str], names: Sequence[str]) -> None:
    if fmt == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    elif fmt == "yaml":
        click.echo(to_yaml(value), nl=False)
    elif fmt == "name":
        for name in names:
            click.echo(printable(name))
    else:
        text = table()
        if text:
            click.echo(printable(text))


def camel(word: str) -> str:
    """The name of a Python attribute as documents have it: `rest_url` as `restUrl`."""
    first, *rest = word.split("_")
    return first + "".join(part.capitalize() for part in rest)


def columns(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as aligned columns with a heading, as kubectl prints them. An empty string for no rows."""
    if not rows:
        return ""
    heads = list(rows[0])
    width = {head: max(len(head), *(len(row[head]) for row in rows)) for head in heads}
    lines = [{head: head.upper() for head in heads}, *rows]
    return "\n".join("  ".join(line[head].ljust(width[head]) for head in heads).rstrip() for line in lines)


def shorten(text: str, room: int) -> str:
    """At most `room` letters: of a path its end says most, of a name both ends."""
    if len(text) <= room:
        return text
    tail = room - 3 if "/" in text else room // 2
    return f"{text[: room - tail - 1]}…{text[-tail:]}"
