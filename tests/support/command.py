"""Run the command `platform` as a user would, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def environment(home: Path | None) -> dict[str, str]:
    """This process's environment with runs and servers kept in `home`."""
    mine = ("TRAINSERVE_", "PYTHON")  # such as PYTHONUNBUFFERED, which hides what a user's buffered stdout does
    kept = {key: value for key, value in os.environ.items() if not key.startswith(mine)}
    return {**kept, **({"TRAINSERVE_HOME": str(home)} if home else {}), "NO_COLOR": "1", "COLUMNS": "120"}


def command(*words: object) -> list[str]:
    """The argument list of `platform WORDS`."""
    return [sys.executable, "-m", "trainserve", *map(str, words)]


def platform(
    *words: object, home: Path | None = None, cwd: Path | None = None, timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run to the end; the caller looks at code, stdout and stderr."""
    return subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        check=False,
        env=environment(home),
        cwd=cwd,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )
