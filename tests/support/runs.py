"""Processes and run folders for tests of launch/ and local/."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Poll until `condition` holds; fail with `what` after `timeout_s`."""
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def clean_env(**extra: str) -> dict[str, str]:
    """This process's environment without what another agent or run left in it, plus `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PET_", "TRAINSERVE_", "TORCHELASTIC_", "MASTER_", "OMP_"))
        and name not in {"RANK", "WORLD_SIZE", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES"}
    }
    return {**kept, **extra}


def agent(
    tmp_path: Path, source: str, env: Mapping[str, str] | None = None, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[str]:
    """Start `python -m trainserve.launch` on a script made of `source`, in a session of its own."""
    script = tmp_path / "script.py"
    script.write_text(source)
    return subprocess.Popen(
        [sys.executable, "-m", "trainserve.launch", str(script)],
        env=clean_env(TRAINSERVE_TERMINATION_LOG=str(tmp_path / "termination-log"), **(env or {})),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        pass_fds=pass_fds,
    )
