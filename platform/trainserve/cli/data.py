"""`platform data get` and `platform data check`: example data sets, and what to know of one's own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from trainserve.cli.data_table import report_table
from trainserve.cli.output import emit, output_option, say
from trainserve.cli.spec_flags import given, spec_options
from trainserve.errors import EXIT_DATA, EXIT_OK, UserError
from trainserve.machine import cgroup


@click.group("data", short_help="Get example data, or check your own.")
def data_command() -> None:
    """Get example data, or check your own."""


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


@data_command.command("check")
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A Classifier as a YAML file; - is stdin.")
@click.option("--set", "sets", multiple=True, metavar="FIELD=VALUE", help="Set any field, e.g. train.batchSize=8.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Threads. [default: one a core]")
@output_option("table", "json", "yaml")
@spec_options("data", without=("--data", "--crop-scale", "--flip", "--jitter"))
def check_command(
    folder: str | None, file: Path | None, sets: tuple[str, ...], jobs: int | None, fmt: str, **spec_flags: Any
) -> int:
    """Look at every picture below DIR and say everything that `train` would refuse, and what it would not notice.

    Counts of each class and split, sizes, formats, unreadable pictures with reasons, the same picture twice, in
    training and validation or under two classes, balance, ignored files. Exit status: 0 if `train` would begin, 65 if
    not.
    """
    from trainserve.spec.load import load
    from trainserve.train.datacheck import check_data

    flags = given(spec_flags, "data")
    if folder is not None:
        flags["spec.data.path"] = ("DIR", folder)
    elif file is None:
        raise UserError("which folder?", hint="platform data check DIR, or -f FILE with spec.data.path")
    classifier = load(file, sets, flags, name_for=lambda _: "data")
    with Progress(
        TextColumn("looking at pictures"), BarColumn(bar_width=30), MofNCompleteColumn(),
        console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=None)
        report = check_data(
            classifier,
            threads=jobs or cgroup.cores(),
            source=str(file) if file else None,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    emit(fmt, report.to_dict(), table=lambda: report_table(report))
    say(f"next: {report.next}")
    return EXIT_OK if report.ok else EXIT_DATA
