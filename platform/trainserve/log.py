"""Logging of the long-running parts: one line a fact, to stderr or a file; stdout stays free for data.

Facts that hold for all that happens in a block, such as which job it is about, are set once by `about` and are in every
line: in JSON as fields, in text at the end as `key=value`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TextIO, TypeAlias

FORMAT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"

Fact: TypeAlias = str | int | float

_facts: ContextVar[Mapping[str, Fact]] = ContextVar("facts", default={})  # noqa: B039  never changed, only replaced
_BEARER = re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]{8,}")


@contextmanager
def about(**facts: Fact) -> Iterator[None]:
    """Every line that is logged in the block, by whichever module, carries these facts."""
    token = _facts.set({**_facts.get(), **facts})
    try:
        yield
    finally:
        _facts.reset(token)


def setup(
    level: str = "INFO",
    stream: TextIO | None = None,
    *,
    form: Literal["plain", "text", "json"] = "plain",
) -> None:
    """Send the package's log lines to `stream` (default stderr).

    "plain" leaves the facts out, "text" has them at the end, "json" is one object a line: ts (RFC 3339, UTC), level,
    msg, logger, the facts, and error (the traceback) where there is one. In these two forms what other packages warn of
    goes there as well.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter({"plain": logging.Formatter(FORMAT), "text": _Text(FORMAT), "json": _Json()}[form])
    root = logging.getLogger("trainserve")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
    if form != "plain":
        logging.basicConfig(handlers=[handler], level=logging.WARNING)


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        facts = "".join(f" {key}={value}" for key, value in _facts.get().items())
        return _without_tokens(super().formatMessage(record)) + facts

    def formatException(self, ei: object) -> str:  # noqa: N802  logging's name
        return _without_tokens(super().formatException(ei))  # type: ignore[arg-type]  # as the base class takes it


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Fact] = {
            "ts": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "msg": _without_tokens(record.getMessage()),
            "logger": record.name,
            **_facts.get(),
        }
        if record.exc_info:
            line["error"] = _without_tokens(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def _without_tokens(text: str) -> str:
    """Credentials that an error's text has picked up from a request do not reach a log."""
    return _BEARER.sub(r"\1 (hidden)", text)
