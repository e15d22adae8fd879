from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.tiny import home_in


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """TRAINSERVE_HOME of this test."""
    with home_in(tmp_path / "home", monkeypatch) as folder:
        yield folder
