"""`platform package`: a finished run, or a bundle, as a TorchServe archive."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from trainserve.cli.models import bundle_of
from trainserve.cli.output import emit, say
from trainserve.cli.spec_flags import given, spec_options
from trainserve.package import mar
from trainserve.spec.load import load
from trainserve.spec.source import Source


@click.command("package", short_help="Pack a finished run into a TorchServe archive.")
@click.argument("run")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The archive to write. [default: NAME.mar]")
@click.option("--name", help="The model's name on the server. [default: the run's]")
@click.option("--model-version", default="1.0", show_default=True, help="The model's version, a text: 1.10 stays 1.10.")
@click.option("--format", "fmt", type=click.Choice(["table", "json", "yaml", "name"]), default="table", help="Format.")
@spec_options("serve")
def package_command(
    run: str, out: Path | None, name: str | None, model_version: str, fmt: str, **spec_flags: Any
) -> int:
    """Pack RUN, a finished run or the folder of a bundle, into a .mar for TorchServe.

    The same inputs give the same bytes. What is not given here is as the run's spec says.
    """
    from trainserve.package.bundle import read_bundle  # imports torch

    run_name, bundle = bundle_of(run)
    name = run_name if name is None else name
    description = read_bundle(bundle).description
    # The bundle's own settings, with the flags over them, through the one loader that knows every rule.
    own = {"metadata": {"name": "model"}, "spec": {"data": {"path": "-"}, "serve": _plain(description.serve)}}
    serve = load(Source(str(bundle), own), (), given(spec_flags, "serve")).spec.serve
    destination = out or Path(f"{name}.mar")
    digest = mar.build_mar(bundle, destination, name=name, version=model_version, serve=serve)
    result = {"archive": str(destination.absolute()), "name": name, "version": model_version, "sha256": digest}
    emit(fmt, result, table=lambda: str(destination), names=[str(destination)])
    say(f"model {name} {model_version}, {len(description.classes)} classes, sha256 {digest}")
    say(f"next:\n  platform serve {shlex.quote(str(destination))}")
    return 0


def _plain(model: Any) -> Any:
    return json.loads(model.model_dump_json(by_alias=True, exclude_none=True))
