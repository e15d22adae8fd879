"""The user's folder on this machine: runs and servers."""

from __future__ import annotations

import os
from pathlib import Path

from trainserve.kube.names import ENV_HOME


def home() -> Path:
    """$TRAINSERVE_HOME, or ~/.trainserve: absolute, `~` expanded. Writers make it."""
    return expanded(os.environ.get(ENV_HOME) or user_home() / ".trainserve").absolute()


def user_home() -> Path:
    """`~`: where shells keep their settings."""
    return Path.home()


def expanded(path: str | Path) -> Path:
    """`path` with `~` and `~user` replaced; as a shell does, a user that is not known stays as it was typed."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  pathlib raises RuntimeError for a user that is not known
