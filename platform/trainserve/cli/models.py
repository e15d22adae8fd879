"""`platform models`: the networks that can be trained, and how large each is."""

from __future__ import annotations

from typing import Literal

import click

from trainserve.cli.output import columns, emit, output_option, say
from trainserve.client.client import Client


@click.command("models", short_help="List the ResNets: parameters, multiply-adds, memory.")
@click.option("--image-size", type=click.IntRange(8, 1024), default=224, show_default=True, help="Side, in pixels.")
@click.option(
    "--classes", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Number of classes."
)
@click.option(
    "--stem",
    type=click.Choice(["imagenet", "small"]),
    default="imagenet",
    show_default=True,
    help="First layers: 7x7 stride 2 and max-pool, or 3x3 stride 1 without pool.",
)
@output_option("table", "json", "yaml", "name")
def models_command(image_size: int, classes: int, stem: Literal["imagenet", "small"], fmt: str) -> int:
    """List the networks for `--arch`, counted on the networks themselves.

    Multiply-adds are of the answer for one picture. Activations are what training keeps of one picture for the backward
    pass, in float32: a process needs about its share of the batch times that, and the checkpoint three times.
    """
    found = Client().models(image_size=image_size, classes=classes, stem=stem)
    rows = [
        {
            "arch": size.arch,
            "parameters": f"{size.parameters / 1e6:.1f} M",
            "multiply-adds": f"{size.multiply_adds / 1e9:.1f} G",
            "weights": f"{size.weights_bytes / 1e6:.0f} MB",
            "checkpoint": f"{size.checkpoint_bytes / 1e6:.0f} MB",
            "activations a picture": f"{size.activation_bytes / 1e6:.0f} MB",
        }
        for size in found
    ]
    document = [
        {
            "arch": size.arch,
            "parameters": size.parameters,
            "multiplyAdds": size.multiply_adds,
            "weightsBytes": size.weights_bytes,
            "checkpointBytes": size.checkpoint_bytes,
            "activationBytesAPicture": size.activation_bytes,
        }
        for size in found
    ]
    emit(fmt, document, table=lambda: columns(rows), names=[size.arch for size in found])
    say(f"at {image_size} px, {classes} classes, stem {stem}")
    return 0
