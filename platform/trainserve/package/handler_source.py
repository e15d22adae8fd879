"""Where the TorchServe handler's file is: in the wheel `trainserve/_handlers/`, in a checkout `handlers/`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from trainserve.errors import EnvironmentProblem

HANDLER = "resnet_classifier.py"


def handler_source() -> bytes:
    """The handler's bytes, as they go into a .mar. Raises EnvironmentProblem when the installation lacks them."""
    installed = resources.files("trainserve") / "_handlers" / HANDLER
    if installed.is_file():
        return installed.read_bytes()
    checkout = Path(__file__).resolve().parents[3] / "handlers" / HANDLER
    if checkout.is_file():
        return checkout.read_bytes()
    raise EnvironmentProblem(f"this installation has no handler {HANDLER}", hint="install trainserve again")
