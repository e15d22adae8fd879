"""Where the run comes from, as tables: pictures, settings, environment, lineage. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median_low

from trainserve.evaluate.report.bars import small_bar
from trainserve.evaluate.report.content import DataFacts, RunReport
from trainserve.evaluate.report.html import Html, element, join, name
from trainserve.evaluate.report.tables import Cell, Row, table
from trainserve.train.folders import as_text

SKIPPED = 20
FOLDED = 12  # more classes than this are folded away


def data(found: DataFacts | None) -> Html | None:
    """Counts of each class and split, sizes, what was left out."""
    if found is None:
        return None
    total = None if found.train is None or found.val is None else f"{found.train + found.val:,}"
    facts = {
        "folder": found.path,
        "pictures": f"{total}: {found.train:,} for training, {found.val:,} for validation" if total else "",
        "sizes": found.sizes,
        "formats": ", ".join(f"{kind} {count}" for kind, count in found.formats.items()),
        "looked at": f"headers of {found.looked_at}, spread evenly" if found.looked_at else "",
        "left out": f"{len(found.skipped)} pictures that cannot be read" if found.skipped else "",
        "classes": _balance(found),
    }
    parts = [pairs_of(facts)]
    if not found.there:
        parts.append(
            element("p", "The pictures are not there any more: these are the training's own counts.", class_="note")
        )
    if found.skipped:
        items = [
            element("li", name(as_text(picture), 60), f": {reason}") for picture, reason in found.skipped[:SKIPPED]
        ]
        if len(found.skipped) > SKIPPED:
            items.append(element("li", f"and {len(found.skipped) - SKIPPED} more: data-check.json in the run's output"))
        parts.append(element("details", element("summary", "Pictures that cannot be read"), element("ul", *items)))
    parts += [element("p", text, class_="note") for text in found.notices]
    if found.classes:
        most = max((train or 0) + (val or 0) for _, train, val in found.classes) or 1
        rows = [
            [
                Cell(name(label, 40), label),
                Cell("–" if train is None else f"{train:,}", train or 0),
                Cell("–" if val is None else f"{val:,}", val or 0),
                _together((train or 0) + (val or 0), most),
            ]
            for label, train, val in found.classes
        ]
        shown = table("Pictures of each class", ["class", "training", "validation", "together"], rows, sortable=True)
        words = f"Pictures of each of {len(rows)} classes"
        parts.append(element("details", element("summary", words), shown, open=len(rows) <= FOLDED))
    return join(*parts)


def _together(count: int, most: int) -> Cell:
    return Cell(join(f"{count:,} ", small_bar(count / most)), count)


def _balance(found: DataFacts) -> str:
    counts = [train + val for _, train, val in found.classes if train is not None and val is not None]
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    text = f"{len(counts)}, with {low:,} to {high:,} pictures (median {median_low(counts):,})"
    return text + ("; unbalanced: the small ones count little in top-1" if high > 5 * max(1, low) else "")


def settings(report: RunReport) -> Html | None:
    """What was set; the rest folded away."""
    if not report.settings:
        return None
    changed = [item for item in report.settings if item.changed]
    rest = [item for item in report.settings if not item.changed]
    rows: list[Row] = [
        [Cell(element("code", item.field)), name(item.value, 80), name(item.default, 40)] for item in changed
    ]
    usual: list[Row] = [[Cell(element("code", item.field)), name(item.value, 80)] for item in rest]
    folded = element(
        "details",
        element("summary", f"{len(rest)} settings as they are by default"),
        table("Settings with their defaults", ["field", "value"], usual, texts=2),
    )
    heads = ["field", "value", "default"]
    return join(table("What differs from the defaults", heads, rows, texts=3) if rows else None, folded)


def environment(report: RunReport) -> Html | None:
    """Network, devices, versions."""
    found = {**report.model, **report.environment}
    return pairs_of(found) if found else None


def lineage(report: RunReport) -> Html | None:
    """Digests, seed, versions."""
    return pairs_of(report.lineage) if report.lineage else None


def pairs_of(values: Mapping[str, str]) -> Html:
    """Names with their values; without those that are empty."""
    return element(
        "dl",
        *(join(element("dt", key), element("dd", name(value))) for key, value in values.items() if value),
        class_="facts",
    )
