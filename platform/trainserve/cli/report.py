"""`platform report`: a run, or several, as one HTML file."""

from __future__ import annotations

from pathlib import Path

import click

from trainserve.cli.complete import run_names
from trainserve.cli.output import emit, output_option, say
from trainserve.cli.paths import FilePath
from trainserve.cli.progress import Display
from trainserve.cli.signals import end_tidily


@click.command("report", short_help="Write one HTML file about a run, or several.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=run_names)
@click.option(
    "--data",
    type=FilePath(),
    help="Where the pictures are now, or others to ask the network about. [default: where they were]",
)
@click.option(
    "--out",
    type=FilePath(),
    metavar="FILE.html",
    help="[default: report.html in the output folder of the run]",
)
@click.option("--open", "open_", is_flag=True, help="Show it in the browser.")
@output_option()
def report_command(runs: tuple[str, ...], data: Path | None, out: Path | None, open_: bool, fmt: str) -> int:
    """Write everything about a run into one HTML file that needs no network, and print its path.

    Result with its confidence interval, curves, confusion matrix, classes, mistakes and where the network looked,
    calibration, data, settings, lineage. A run that has not finished gets what there is. Several runs are laid over
    each other. -o json gives the numbers behind it.
    """
    end_tidily()
    from trainserve.client.report import report

    with Display() as display:
        made = report(runs, display, data=data, out=out)
    path = str(made.path)
    emit(fmt, {"path": path, "bytes": made.size, "runs": made.runs}, table=lambda: path, names=[path])
    if open_:
        import webbrowser

        if not webbrowser.open(made.path.as_uri()):
            say(f"no browser could be started; open {path}")
    return 0
