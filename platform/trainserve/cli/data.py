"""`platform data get`: example data sets, as folders of pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from trainserve.cli.output import emit, output_option, say


@click.group("data", short_help="Get example data.")
def data_command() -> None:
    """Get example data."""


@data_command.command("get")
@click.argument("dataset", type=click.Choice(["digits"]))
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@output_option("table", "json", "yaml", "name")
def get_command(dataset: str, folder: Path | None, fmt: str) -> int:
    """Write a data set as PNG files, a folder a class. FOLDER is ./DATASET unless given.

    digits: the 1,797 scanned handwritten digits that come with scikit-learn; nothing is downloaded.
    """
    from trainserve.train import get  # scikit-learn takes a second to import

    found = get.get_digits(folder or Path(dataset))
    document = {**asdict(found), "path": str(found.path)}
    emit(fmt, document, table=lambda: "", names=[str(found.path)])
    kept = " (it was there already)" if found.reused else ""
    say(f"{found.pictures} pictures of {found.classes} classes in {found.path}{kept}, sha256 {found.digest[:12]}")
    say(f"licence: {found.licence}")
    return 0
