"""A finished run, or a bundle, in a format that others load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainserve.client.models import bundle_of

if TYPE_CHECKING:
    from trainserve.package.export import Exported


def export(word: str | Path, form: str, out: Path | None = None, *, dynamic_batch: bool = True) -> Exported:
    """Write `torchscript`, `torch-export` or `onnx`; `out` is the run's name and the format's ending unless given.

    Raises what `package.export.export` raises, and UserError where there is no such run or bundle.
    """
    from trainserve.package import export as exports  # imports torch

    name, bundle = bundle_of(word)
    destination = out or Path(f"{name}{exports.format_of(form).suffix}")
    return exports.export(bundle, form, destination, dynamic_batch=dynamic_batch)
