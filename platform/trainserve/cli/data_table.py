"""What `platform data check` prints for people."""

from __future__ import annotations

from collections.abc import Iterator

from trainserve.cli.output import columns
from trainserve.machine.usage import size_words
from trainserve.train.datacheck import DataReport, Range
from trainserve.train.oddities import Warned

CLASSES = 40  # rows; the largest and the smallest of more
EXAMPLES = 3  # of a warning


def report_table(report: DataReport) -> str:
    """Counts first, then what is odd, then, last on the screen, what `train` would refuse."""
    blocks = [_classes(report), "\n".join(_numbers(report)), "\n".join(_ignored(report))]
    blocks += ["\n".join(_warned(warned)) for warned in report.warnings]
    blocks += ["\n".join(_refused(report))]
    return "\n\n".join(block for block in blocks if block)


def _classes(report: DataReport) -> str:
    rows = [
        {"class": name, "train": str(counts["train"]), "val" if report.split else "held out": str(counts["val"])}
        for name, counts in report.classes.items()
    ]
    if len(rows) > CLASSES:
        ordered = sorted(rows, key=lambda row: -int(row["train"]))
        half = CLASSES // 2
        dots = dict.fromkeys(rows[0], "") | {"class": f"... {len(rows) - CLASSES} more"}
        rows = [*ordered[:half], dots, *ordered[-half:]]
    return columns(rows)


def _numbers(report: DataReport) -> Iterator[str]:
    pictures, held = report.pictures, "val" if report.split else "held out"
    yield (
        f"{pictures['total']} pictures of {len(report.classes)} classes in {report.path}: "
        f"{pictures['train']} train, {pictures['val']} {held}"
    )
    if report.width and report.height:
        yield f"width {_range(report.width)} px, height {_range(report.height)} px  (min / median / max)"
    if report.file_size:
        size = report.file_size
        yield f"file size {size_words(size.min)} / {size_words(size.median)} / {size_words(size.max)}"
    if report.formats:
        yield "formats " + ", ".join(f"{name} {count}" for name, count in report.formats.items())
        yield "modes " + ", ".join(f"{name} {count}" for name, count in report.modes.items())
    yield from (notice for notice in report.notices if not notice.startswith("ignored "))


def _ignored(report: DataReport) -> Iterator[str]:
    for what, paths in report.ignored.items():
        more = f" and {len(paths) - EXAMPLES} more" if len(paths) > EXAMPLES else ""
        yield f"ignored {what} ({len(paths)}): {', '.join(paths[:EXAMPLES])}{more}"


def _warned(warned: Warned) -> Iterator[str]:
    yield f"warning: {warned.message}"
    if len(warned.groups) == 1 and warned.kind not in {"two-labels", "across-splits", "duplicates", "names-alike"}:
        yield from _indented(list(warned.groups[0]))
    else:
        yield from _indented([" = ".join(group) for group in warned.groups])
    if warned.hint:
        yield f"  hint: {warned.hint}"


def _indented(lines: list[str]) -> Iterator[str]:
    yield from (f"  {line}" for line in lines[:EXAMPLES])
    if len(lines) > EXAMPLES:
        yield f"  and {len(lines) - EXAMPLES} more (-o json has all)"


def _refused(report: DataReport) -> Iterator[str]:
    if report.ok:
        skipped = f", without {len(report.unreadable)} unreadable" if report.unreadable else ""
        yield f"ok: train would begin{skipped}"
        return
    count = len(report.refusals)
    yield f"train would refuse this, for {count} reason{'s' * (count != 1)}:"
    for number, refusal in enumerate(report.refusals, start=1):
        yield f"{number}. " + refusal.message.replace("\n", "\n   ")
        if refusal.hint:
            yield f"   hint: {refusal.hint}"


def _range(found: Range) -> str:
    return f"{found.min} / {found.median} / {found.max}"
