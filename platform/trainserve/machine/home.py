"""The user's folder on this machine: runs and servers."""

from __future__ import annotations

import os
from pathlib import Path

from trainserve.kube.names import ENV_HOME


def home() -> Path:
    """$TRAINSERVE_HOME, or ~/.trainserve: absolute, `~` expanded. Writers make it."""
    return Path(os.environ.get(ENV_HOME) or user_home() / ".trainserve").expanduser().absolute()


def user_home() -> Path:
    """`~`: where shells keep their settings."""
    return Path.home()
