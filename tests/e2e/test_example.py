"""The example of the Client runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import environment

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "client.py"


def test_the_example_is_short_and_has_cells() -> None:
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) < 60
    assert text.count("\n# %% ") >= 7


@pytest.mark.slow
def test_the_example_trains_packs_serves_and_predicts(tmp_path: Path) -> None:
    env = {**environment(tmp_path / "home"), "QUICK": "1"}
    done = subprocess.run(
        [sys.executable, EXAMPLE], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^epoch 1: top-1 \d+\.\d%$", done.stdout, re.MULTILINE)
    assert re.search(r"^digits: Succeeded, top-1 \d+\.\d% after \d+ steps$", done.stdout, re.MULTILINE)
    assert len(re.findall(r"^digits/3/\d+\.png \d \d+\.\d%$", done.stdout, re.MULTILINE)) == 5
    assert (tmp_path / "digits.mar").is_file()
    assert "starting the native engine with digits.mar" in done.stdout
    assert done.stderr == ""
