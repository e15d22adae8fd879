from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.here import Here
from support.tiny import home_in


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """TRAINSERVE_HOME of this test."""
    with home_in(tmp_path / "home", monkeypatch) as folder:
        yield folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """`here("status", "x")` is `platform status x`, in this process."""
    return Here(monkeypatch, capsys)
