"""YAML with positions: the values of a file and, for every field, the line and column where it stands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from trainserve.errors import SpecError

FieldPath = tuple[str | int, ...]


MAX_BYTES = 1 << 20  # of a file
MAX_FIELDS = 100_000  # also through aliases, which can stand for each other
_NUMBERS_AND_DATES = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"}


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads numbers as JSON does: `1e-3` is one; `010`, `1_0`, `1:30` and dates are texts."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS_AND_DATES]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^(?:[-+]?(?:0|[1-9][0-9]*)\.[0-9]*(?:[eE][-+]?[0-9]+)?
             |[-+]?(?:0|[1-9][0-9]*)[eE][-+]?[0-9]+
             |[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?
             |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+.0123456789"),
)


STDIN = Path("-")


@dataclass
class Source:
    """What one file says. `positions` maps a field's path to its (line, column), both from 1."""

    name: str
    values: dict[str, Any]
    positions: dict[FieldPath, tuple[int, int]] = field(default_factory=dict)

    def where(self, path: FieldPath) -> str:
        """`file:line` of the field, or of the nearest parent that stands in the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.positions:
                return f"{self.name}:{self.positions[path[:length]][0]}"
        return self.name


def read_file(path: Path) -> Source:
    """Parse the YAML file at `path`, which must hold one mapping; `-` is stdin.

    Raises SpecError with file, line and column in one line.
    """
    try:
        with nullcontext(sys.stdin.buffer) if path == STDIN else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file", hint="give the spec's path with -f FILE") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise SpecError(f"{path}: more than {MAX_BYTES:,} bytes, which no spec has")
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Source:
    """Parse YAML bytes; `name` is what errors call them."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise SpecError(
            f"{name}:{line}:{column}: byte 0x{data[error.start]:02x} is not UTF-8",
            hint="save the file with encoding UTF-8",
        ) from None
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise SpecError(f"{name}:1:1: the file is empty", hint="see `platform train --dry-run` for a whole spec")
        source = Source(name, {})
        value = _construct(loader, node, (), source, iter(range(MAX_FIELDS)))
    except yaml.MarkedYAMLError as error:
        raise SpecError(_syntax(error, name, text)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError(f"{name}:{line}: character #x{ord(text[error.position]):04x} is not allowed in YAML") from None
    except RecursionError:
        raise SpecError(f"{name}:1:1: nested too deeply to be a spec", hint="does an alias (*) hold itself?") from None
    except (ValueError, OverflowError) as error:  # such as an integer of a million digits
        raise SpecError(f"{name}:1:1: a value cannot be read: {error}", hint="quote it") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(value, dict):
        raise SpecError(
            f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}: "
            f"the file holds {_called(value)}, not a mapping of fields",
            hint="begin with `spec:`; `platform train --dry-run` prints an example",
        )
    source.values = value
    return source


def scalar(text: str) -> Any:
    """A value as a YAML file would read it: `3`, `1e-3`, `true`, `null`, `[0.8, 1]`, else the text itself."""
    try:
        values = parse(f"value: {text}".encode(), "").values
    except (SpecError, UnicodeEncodeError):
        return text
    value = values["value"] if len(values) == 1 else text
    return text if value is None and text.strip() not in ("null", "~", "Null", "NULL") else value


def _construct(loader: _Loader, node: Node, path: FieldPath, source: Source, left: Iterator[int]) -> Any:
    if next(left, None) is None:
        line, column = _position(node)
        raise SpecError(f"{source.name}:{line}:{column}: more than {MAX_FIELDS:,} values, which no spec has")
    source.positions.setdefault(path, _position(node))
    if isinstance(node, MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _paired(str(key_node.value)) if isinstance(key_node, ScalarNode) else None
            line, column = _position(key_node)
            if key is None:
                raise SpecError(f"{source.name}:{line}:{column}: a key must be a plain word")
            if key in result:
                first = source.positions[(*path, key)][0]
                raise SpecError(f"{source.name}:{line}:{column}: key {key!r} stands twice, first in line {first}")
            source.positions[(*path, key)] = (line, column)
            result[key] = _construct(loader, value_node, (*path, key), source, left)
        return result
    if isinstance(node, SequenceNode):
        return [_construct(loader, child, (*path, index), source, left) for index, child in enumerate(node.value)]
    value = loader.construct_object(node, deep=True)
    if not isinstance(value, str | int | float | None):
        line, column = _position(node)
        raise SpecError(
            f"{source.name}:{line}:{column}: {node.tag} is no kind of value that a spec has", hint="quote it"
        )
    return _paired(value) if isinstance(value, str) else value


def _paired(text: str) -> str:
    """Two halves of a pair, as JSON writes a letter beyond the first 65,536, are that letter; a half alone stays."""
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _position(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _syntax(error: yaml.MarkedYAMLError, name: str, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = text.splitlines()
    tabbed = next((n for n, content in enumerate(lines, 1) if re.match(r" *\t", content)), None)
    if tabbed is not None and tabbed <= line + 1:
        return f"{name}:{tabbed}:{lines[tabbed - 1].index(chr(9)) + 1}: a tab in the indentation; YAML wants spaces"
    if "expected ':'" in (error.problem or "") or "mapping values are not allowed" in (error.problem or ""):
        return f"{name}:{line}:{column}: {error.problem} (is a colon missing on this line or the one before?)"
    return f"{name}:{line}:{column}: {error.problem or error.context or 'not YAML'}"


def _called(value: Any) -> str:
    return {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a yes/no"}.get(
        type(value), type(value).__name__
    )
