"""`platform export`: a finished run, or a bundle, as TorchScript, torch.export or ONNX."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from trainserve.cli.complete import run_names
from trainserve.cli.output import emit, output_option, say
from trainserve.cli.paths import FilePath
from trainserve.cli.signals import end_tidily
from trainserve.client.client import Client

FORMATS = ("torchscript", "torch-export", "onnx")


@click.command("export", short_help="Write a model as TorchScript, torch.export or ONNX, checked.")
@click.argument("run", shell_complete=run_names)
@click.option("--format", "form", type=click.Choice(FORMATS), required=True, help="Written as .pt, .pt2 or .onnx.")
@click.option("--out", type=FilePath(), help="The file to write. [default: NAME and the format's ending]")
@click.option(
    "--dynamic-batch/--no-dynamic-batch", default=True, show_default=True, help="Take any batch, or one picture only."
)
@output_option("table", "json", "yaml", "name")
def export_command(
    run: str, form: Literal["torchscript", "torch-export", "onnx"], out: Path | None, dynamic_batch: bool, fmt: str
) -> int:
    """Write RUN, a finished run or the folder of a bundle, in a format that needs nothing of this platform.

    The file takes `images`, float32 [batch, 3, S, S], and gives `logits`, [batch, classes]; how a picture becomes such
    numbers, and the names of the classes, are in the model.json inside the file (TorchScript and torch.export: an extra
    file of that name; ONNX: metadata of that name).

    Before the file gets its name, a fresh process loads it, without this platform (ONNX: without PyTorch), and its
    answers are compared with the logits that training left. Exit status 1: they differ, and nothing was written.
    """
    end_tidily()
    made = Client().export(run, form, out, dynamic_batch=dynamic_batch)
    result = {**asdict(made), "path": str(made.path.absolute())}
    emit(fmt, _camel(result), table=lambda: str(made.path), names=[str(made.path)])
    say(f"{made.format}, {made.bytes / 1e6:.1f} MB, {len(made.classes)} classes, sha256 {made.sha256}")
    say(
        f"{made.checked} pictures answered by a fresh process: largest difference {made.max_difference:.2g}, "
        f"allowed {made.tolerance:.2g}"
    )
    batch = "batch" if made.dynamic_batch else "1"
    say(f"takes images float32 [{batch}, 3, {made.image_size}, {made.image_size}]; loaded by {made.loaded_by}")
    if made.format == "torchscript":
        say("PyTorch has deprecated TorchScript; its successor is --format torch-export")
    return 0


def _camel(values: dict[str, object]) -> dict[str, object]:
    from pydantic.alias_generators import to_camel

    return {to_camel(name): list(value) if isinstance(value, tuple) else value for name, value in values.items()}
