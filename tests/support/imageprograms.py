"""The programs of manifests/images, which run without this project installed and so are no package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "manifests/images"


def program(name: str) -> ModuleType:
    """The module build, install or lockfile."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)
