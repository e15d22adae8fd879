"""`platform compare`: what differs between runs, and whether it can be chance."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from trainserve.cli.complete import runs_and_archives
from trainserve.cli.output import columns, duration, emit, output_option, percent, shorten
from trainserve.cli.paths import FilePath
from trainserve.cli.progress import Display

if TYPE_CHECKING:
    from trainserve.evaluate.compare import Comparison, Pair, Row

CHANCE = 0.05  # a difference that is at least so probable by chance is called one
PICTURES = 10  # that are listed of a pair
CLASSES = 5

# How the result's numbers are read; the others are shown as they are.
FORMATS: dict[str, Callable[[Any], str]] = {
    "top1": percent,
    "top5": percent,
    "loss": lambda value: f"{value:.4f}",
    "trainLoss": lambda value: f"{value:.4f}",
    "seconds": duration,
    "parameters": lambda value: f"{value:,}",
    "digest": lambda value: str(value)[:12],
}


@click.command("compare", short_help="Show what differs between runs, in spec and result.")
@click.argument("models", metavar="A B...", nargs=-1, required=True, shell_complete=runs_and_archives)
@click.option(
    "--data",
    type=FilePath(),
    help="Ask each about the pictures in this folder. [default: their own validations, where these are the same]",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "all"]),
    help="With --data: which part, as `platform evaluate` takes it. A picture is compared where all were asked.",
)
@click.option("--skip-bad", is_flag=True, help="With --data: leave out pictures that cannot be read.")
@click.option("--ignore-unknown", is_flag=True, help="With --data: leave out classes that a model does not know.")
@output_option("table", "json", "yaml")
def compare_command(
    models: tuple[str, ...],
    data: Path | None,
    split: Literal["train", "val", "all"] | None,
    skip_bad: bool,
    ignore_unknown: bool,
    fmt: str,
) -> int:
    """Compare runs, bundles' folders or .mar files; the others are compared with the first.

    What differs in spec, pictures and environment, the results, and the pictures that one gets right and the other
    wrong, with McNemar's exact test: p is how probable so uneven a split is if both are equally good. It says nothing
    of what another seed would change.
    """
    from trainserve.client.compare import compare
    from trainserve.evaluate.results import comparison

    if data is None and (skip_bad or ignore_unknown or split):
        raise click.UsageError("--split, --skip-bad and --ignore-unknown are for the pictures of --data")
    with Display() as display:
        found = compare(models, display, data=data, split=split, skip_bad=skip_bad, ignore_unknown=ignore_unknown)
    width = max(80, shutil.get_terminal_size().columns)
    emit(fmt, comparison(found), table=lambda: _table(found, width))
    return 0


def _table(found: Comparison, width: int) -> str:
    result = [("", found.subjects), *((row.field, _shown(row)) for row in found.result)]
    parts = [_section("result", result, width)]
    sections: tuple[tuple[str, Sequence[Row]], ...] = (
        ("spec", found.spec),
        ("data", [row for row in found.data if not row.same]),
        ("environment", [row for row in found.environment if not row.same]),
    )
    for name, rows in sections:
        lines = [(row.field, _shown(row)) for row in rows]
        parts.append(_section(name, lines, width) if lines else f"{name.upper()}: the same")
    heads = _heads(len(found.subjects))
    for head, only in zip(heads, found.only_classes, strict=True):
        if only:
            parts.append(_wrapped(f"classes of {head} that not all have: {', '.join(only)}"))
    parts += [_pair(item, head) for item, head in zip(found.pairs, heads[1:], strict=True)]
    return "\n\n".join(parts)


def _section(name: str, lines: Sequence[tuple[str, Sequence[str]]], width: int) -> str:
    """Lines of a field and its values, in columns A, B, ... that fit in `width`."""
    count = len(lines[0][1])
    first = max(len(name), *(len(field) for field, _ in lines))
    room = max(8, (width - first) // count - 2)
    heads = _heads(count)
    return columns(
        [
            {name: field, **{head: shorten(text, room) for head, text in zip(heads, texts, strict=True)}}
            for field, texts in lines
        ]
    )


def _heads(count: int) -> list[str]:
    return [chr(ord("A") + index) if count <= 26 else str(index + 1) for index in range(count)]


def _shown(row: Row) -> list[str]:
    form = FORMATS.get(row.field, str)
    texts = ["-" if value is None else form(value) for value in row.values]
    marks = row.default or (False,) * len(texts)
    return [f"{text} (default)" if usual else text for text, usual in zip(texts, marks, strict=True)]


def _pair(item: Pair, head: str) -> str:
    """The first (A) and another (`head`), picture by picture."""
    paired = item.paired
    if paired is None:
        return _wrapped(f"A and {head}, picture by picture: {item.reason}")
    lines = [f"A and {head} on {paired.common} pictures: right {percent(paired.a)} and {percent(paired.b)}"]
    if paired.only_in_a or paired.only_in_b:
        lines.append(f"not compared, for only one was asked: {paired.only_in_a} of A, {paired.only_in_b} of {head}")
    if paired.a_unanswered or paired.b_unanswered:
        lines.append(
            f"no number (NaN), and so wrong: {paired.a_unanswered} answers of A, {paired.b_unanswered} of {head}"
        )
    differ = paired.only_a_right + paired.only_b_right
    lines.append(f"only A is right on {paired.only_a_right}, only {head} on {paired.only_b_right}; p = {_p(paired.p)}")
    if not differ:
        lines.append("they differ on no picture")
    elif paired.p >= CHANCE:
        lines.append(f"the difference may well be chance (McNemar's exact test, p at least {CHANCE})")
    else:
        better = "A" if paired.only_a_right > paired.only_b_right else head
        lines.append(f"{better} is better, beyond chance (McNemar's exact test, p below {CHANCE})")
    parts = ["\n".join(lines)]
    uneven = [one for one in paired.classes if one.a != one.b]
    if uneven:
        rows = [
            {"class": shorten(one.name, 40), "pictures": str(one.pictures), "A": percent(one.a), head: percent(one.b)}
            for one in uneven[:CLASSES]
        ]
        parts.append(columns(rows) + _more(len(uneven) - CLASSES, "classes"))
    if paired.flips:
        rows = [
            {
                "picture": shorten(flip.picture, 32),
                **{
                    key: shorten(name or "no number", 14)
                    for key, name in (("class", flip.right), ("A", flip.a), (head, flip.b))
                },
            }
            for flip in paired.flips[:PICTURES]
        ]
        parts.append(columns(rows) + _more(len(paired.flips) - PICTURES, "pictures"))
    return "\n\n".join(parts)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 80, break_on_hyphens=False)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _more(count: int, what: str) -> str:
    return f"\nand {count} more {what} (-o json has all)" if count > 0 else ""
