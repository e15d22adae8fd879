"""How a rank's process ends by what went wrong in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NoReturn

import pytest

from trainserve.errors import DataError
from trainserve.launch import work


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (DataError("one class only"), 65, "one class only"),
        (OSError(28, "No space left on device", "/data"), 3, "No space left on device: '/data'"),
        (ZeroDivisionError("x"), 1, "ZeroDivisionError: x"),
    ],
)
def test_exit_codes(error: Exception, code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> NoReturn:
        raise error

    def ended(status: int) -> NoReturn:
        raise SystemExit(status)

    monkeypatch.setattr(work, "run", failing)
    monkeypatch.setattr(os, "_exit", ended)
    monkeypatch.setattr(work.logging, "shutdown", lambda: None)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit) as end:
        work.main()
    assert end.value.code == code
    assert says in json.loads((tmp_path / "error.json").read_text())["message"]["message"]
