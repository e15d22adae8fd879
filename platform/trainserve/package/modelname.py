"""How a model, its version and a server may be called."""

from __future__ import annotations

import re

from trainserve.errors import UserError

# What torch-model-archiver and TorchServe's URLs take; a leading dot or dash would be a hidden file or an option.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def check_name(name: str, what: str = "model name") -> str:
    """`name`, if a model (or a server) may be called so. Raises UserError."""
    return _check(name, what)


def check_version(version: str) -> str:
    """`version`, if a model may have it; it stays the text it is ("1.10" is not "1.1"). Raises UserError."""
    return _check(version, "model version")


def _check(text: str, what: str) -> str:
    if NAME.fullmatch(text) is None or ".." in text:
        raise UserError(f"{what} {text!r}: allowed are letters, digits, `_`, `.` and `-`, at most 128, and no `..`")
    return text
