"""`platform evaluate`: how good a model is on labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from trainserve.cli.complete import runs_and_archives
from trainserve.cli.output import columns, emit, output_option, percent, say, shorten
from trainserve.cli.paths import FilePath
from trainserve.cli.progress import Display
from trainserve.cli.signals import end_tidily
from trainserve.machine.target import check_target

if TYPE_CHECKING:
    from trainserve.evaluate.measures import Measures

ROWS = 20  # of classes in the table
PAIRS = 10


@click.command("evaluate", short_help="Measure a run, bundle, archive or server on labelled pictures.")
@click.argument("model", metavar="RUN|BUNDLE|FILE.mar|URL|SERVER", shell_complete=runs_and_archives)
@click.option(
    "--data",
    type=FilePath(),
    help="Folder with one folder a class, or train/ and val/ with these. [default: what the model was trained with]",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "all"]),
    help="Which part, by train/ and val/ or as the training split it. [default: val where there is val/, else all]",
)
@click.option("--model", "served", metavar="NAME", help="Which model of a server. [default: the only one]")
@click.option("--batch-size", type=click.IntRange(1, 65536), help="Pictures at once, not for a server. [default: 64]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Not for a server. [default: auto]")
@click.option("--skip-bad", is_flag=True, help="Leave out pictures that cannot be read, counted.")
@click.option("--ignore-unknown", is_flag=True, help="Leave out classes that the model does not know, counted.")
@click.option("--save", type=FilePath(), metavar="FILE.json", help="Write it all, every picture too.")
@output_option("table", "json", "yaml")
def evaluate_command(
    model: str,
    data: Path | None,
    split: Literal["train", "val", "all"] | None,
    served: str | None,
    batch_size: int | None,
    device: Literal["auto", "cpu", "cuda"] | None,
    skip_bad: bool,
    ignore_unknown: bool,
    save: Path | None,
    fmt: str,
) -> int:
    """Ask a model about every picture of a labelled folder, and measure its answers.

    Without --data a run, bundle or archive is asked about its own validation pictures; where these have moved, say
    where with --data FOLDER --split val. Classes are matched by name. A server is asked over REST, as any client asks
    it; pictures that it refuses are left out and counted.
    """
    end_tidily()
    from trainserve.client.evaluate import evaluate  # scikit-learn and torch take their time
    from trainserve.evaluate.measures import measure
    from trainserve.evaluate.results import document
    from trainserve.machine.files import write_json

    if save is not None:
        check_target(save, "result.json", "--save", in_folder=True, source=Path(model))
    with Display() as display:
        found = evaluate(
            model, data, display, split=split, batch_size=batch_size, device=device, skip_bad=skip_bad,
            ignore_unknown=ignore_unknown, served=served,
        )  # fmt: skip
    measures = measure(found)
    if save is not None:
        write_json(save, document(found, measures, whole=True))
    emit(fmt, document(found, measures), table=lambda: _table(measures))
    unanswered = found.unanswered()
    if unanswered is not None:
        say(f"warning: {unanswered}")
    for picture, reason in found.skipped[:ROWS]:
        say(f"left out: {picture}: {reason}")
    if found.skipped:
        say(f"{len(found.skipped)} of {len(found.skipped) + measures.pictures} pictures were left out")
    return 0


def _table(measures: Measures) -> str:
    head = {
        "pictures": str(measures.pictures),
        "top-1": percent(measures.top1),
        "top-5": percent(measures.top5),
        "loss": f"{measures.loss:.4f}",
        "ECE": percent(measures.ece),
        "macro F1": percent(measures.macro.f1),
    }
    worst_first = sorted((item for item in measures.classes if item.support), key=lambda item: item.f1)
    rows = [
        {
            "class": shorten(item.name, 40),
            "pictures": str(item.support),
            "precision": percent(item.precision),
            "recall": percent(item.recall),
            "F1": percent(item.f1),
        }
        for item in worst_first[:ROWS]
    ]
    parts = [columns([head]), columns(rows)]
    if len(worst_first) > ROWS:
        parts[-1] += f"\nand {len(worst_first) - ROWS} better classes (-o json has all)"
    pairs = [
        {
            "class": shorten(pair.actual, 28),
            "taken for": shorten(pair.predicted, 28),
            "pictures": str(pair.count),
            "share": percent(pair.share),
        }
        for pair in measures.confused[:PAIRS]
    ]
    if pairs:
        parts.append(columns(pairs))
    if len(measures.confused) > PAIRS:
        parts[-1] += f"\nand {len(measures.confused) - PAIRS} rarer pairs (-o json has all)"
    return "\n\n".join(parts)
