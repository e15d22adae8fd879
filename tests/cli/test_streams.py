"""Standard streams that whoever started the command has closed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.command import command, environment


@pytest.mark.parametrize(("closed", "prints"), [("<&-", True), (">&-", False), ("2>&-", True), ("<&- >&- 2>&-", False)])
def test_a_closed_stream_leads_nowhere_and_breaks_nothing(closed: str, prints: bool, tmp_path: Path) -> None:
    words = ["sh", "-c", f'exec "$@" {closed}', "sh", *command("list", "-o", "json")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment(tmp_path), timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    if prints:
        assert json.loads(done.stdout) == {"runs": [], "servers": []}
    else:
        assert done.stdout == ""
