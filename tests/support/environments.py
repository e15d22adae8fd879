"""Python environments of other packages than ours, for programs that tests run beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from support.clusterbinaries import ROOT
from support.gomodules import kept, lock_of


def python_with(name: str, *packages: str) -> Path:
    """The interpreter of an environment with these packages, made once and kept in the user's cache."""
    cache = kept()
    cache.mkdir(parents=True, exist_ok=True)
    wanted = (
        cache / f"{name}-{'-'.join(packages).replace('<', '_')}-py{sys.version_info.major}.{sys.version_info.minor}"
    )
    lock = lock_of(cache / f"{name}.lock")
    try:
        if not wanted.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as scratch:
                made = Path(scratch, "venv")
                uv = shutil.which("uv") or str(ROOT / ".cache/uv/bin/uv")
                interpreter = ["--python", sys.executable]
                subprocess.run([uv, "venv", "--quiet", "--relocatable", *interpreter, made], check=True)
                subprocess.run(
                    [uv, "pip", "install", "--quiet", "--python", made / "bin/python", *packages, "pyyaml"], check=True
                )
                made.replace(wanted)
    finally:
        os.close(lock)
    return wanted / "bin/python"
