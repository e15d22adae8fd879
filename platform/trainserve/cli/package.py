"""`platform package`: a finished run, or a bundle, as a TorchServe archive."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from trainserve.cli.complete import run_names
from trainserve.cli.output import FORMATS, emit, say
from trainserve.cli.paths import FilePath
from trainserve.cli.signals import end_tidily
from trainserve.cli.spec_flags import given, spec_options
from trainserve.client.models import package


@click.command("package", short_help="Pack a finished run into a TorchServe archive.")
@click.argument("run", shell_complete=run_names)
@click.option(
    "-o", "--out", type=FilePath(), metavar="FILE.mar", help="The archive to write, not a format. [default: NAME.mar]"
)
@click.option("--name", help="The model's name on the server. [default: the run's]")
@click.option("--model-version", default="1.0", show_default=True, help="The model's version, a text: 1.10 stays 1.10.")
@click.option(
    "--output", "--format", "fmt", type=click.Choice(FORMATS), default="table", show_default=True,
    help="Format of what is printed: the -o of other verbs.",
)  # fmt: skip
@spec_options("serve")
def package_command(
    run: str, out: Path | None, name: str | None, model_version: str, fmt: str, **spec_flags: Any
) -> int:
    """Pack RUN, a finished run or the folder of a bundle, into a .mar for TorchServe.

    The same inputs give the same bytes. What is not given here is as the run's spec says.
    """
    end_tidily()
    made = package(run, out, name=name, version=model_version, flags=given(spec_flags, "serve"))
    result = {
        "archive": str(made.path.absolute()),
        "name": made.name,
        "version": made.version,
        "sha256": made.sha256,
    }
    emit(fmt, result, table=lambda: str(made.path), names=[str(made.path)])
    say(f"model {made.name} {made.version}, {made.classes} classes, sha256 {made.sha256}")
    say(f"next:\n  platform serve {shlex.quote(str(made.path))}")
    return 0
