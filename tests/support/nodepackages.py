"""What training pods import: this environment's packages and the code, on the node below `realnode.FOLDER`.

An image with torch has several GB; pods mount the packages into a plain Python image instead, and find them by
PYTHONPATH. A hard link a file costs seconds and no room.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from support.clusterbinaries import ROOT, installer
from support.realnode import FOLDER
from trainserve.errors import EnvironmentProblem

PACKAGES = FOLDER / "packages"
SITE = "site-packages"
CODE = "code"  # a regular installation: the environment's own is a link to the checkout


def provide() -> Path:
    """The folder with `SITE` and `CODE`; it goes with the node. Raises EnvironmentProblem."""
    PACKAGES.mkdir(parents=True)
    shutil.copytree(
        sysconfig.get_path("purelib"), PACKAGES / SITE, copy_function=_link, symlinks=True, ignore=_left_out
    )
    done = subprocess.run(
        [*installer(), "--no-deps", "--no-build-isolation", "--target", str(PACKAGES / CODE), str(ROOT)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise EnvironmentProblem(f"the code cannot be installed for the node's pods:\n{done.stderr.strip()}")
    return PACKAGES


def _left_out(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__" or name.endswith(".pth")]


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem
        shutil.copy2(source, target)
