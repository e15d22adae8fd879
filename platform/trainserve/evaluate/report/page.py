"""The page: one HTML file that asks nothing of the network. Pure, but for reading its style sheet and script."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime
from importlib import resources

from trainserve.evaluate.report import answers, facts, results
from trainserve.evaluate.report.content import RunReport
from trainserve.evaluate.report.html import Html, element, join, name, source_hash


def page(reports: Sequence[RunReport], made: datetime) -> str:
    """A whole HTML document about one run, or several."""
    assert reports, "a report is about a run"
    names = [report.facts.name for report in reports]
    title = f"Report: {', '.join(names)}"
    style, script = source("page.css"), source("page.js")
    # Nothing is loaded from anywhere; the only style sheet and script are the two below, known by their digests.
    policy = (
        f"default-src 'none'; img-src data:; style-src {source_hash(style)}; script-src {source_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Html(style)),
    )
    body_ = element("body", body(reports, made), element("script", Html(script)))
    return f"<!doctype html>\n{element('html', head, body_, lang='en')}\n"


def body(reports: Sequence[RunReport], made: datetime) -> Html:
    """What is inside `body`, without the script."""
    single = len(reports) == 1
    names = [report.facts.name for report in reports]
    head = element(
        "header",
        element("p", "Training report", class_="kind"),
        element("h1", _names(names)),
        element("p", f"made on {made:%Y-%m-%d %H:%M} UTC", class_="note"),
    )
    several = None if single else results.several(reports)
    runs = [_run(report, f"run-{number}", alone=single) for number, report in enumerate(reports)]
    tip = element("div", id="tip", role="status", hidden=True)
    return join(head, element("main", several, *runs), tip)


def _names(names: Sequence[str]) -> Html:
    return join(*(join(", " if number else None, name(text)) for number, text in enumerate(names)))


def _run(report: RunReport, key: str, *, alone: bool) -> Html:
    """Everything of one run; of several, each can be folded away."""
    parts = [
        ("result", "Result", results.headline(report)),
        ("curves", "Curves", results.curves_and_numbers(report)),
        ("confusion", "Confusion matrix", answers.confusion(report)),
        ("classes", "Classes", answers.per_class(report)),
        ("pairs", "Most confused pairs", answers.pairs(report)),
        ("mistakes", "Worst mistakes" if not _perfect(report) else "Least sure answers", answers.worst(report)),
        ("calibration", "Calibration", answers.calibration(report)),
        ("first-layer", "First convolution", answers.first_layer(report.first_layer)),
        ("data", "Data", facts.data(report.data)),
        ("spec", "Settings", facts.settings(report)),
        ("environment", "Environment", facts.environment(report)),
        ("lineage", "Lineage", facts.lineage(report)),
    ]
    there = [(anchor, title, content) for anchor, title, content in parts if content is not None]
    links = [element("li", element("a", title, href=f"#{key}-{anchor}")) for anchor, title, _ in there]
    menu = element("nav", element("ul", *links), aria_label=f"Parts of the report of {report.facts.name}")
    sections = [
        element(
            "section",
            element("h2" if alone else "h3", title, id=f"{key}-{anchor}"),
            content,
            aria_labelledby=f"{key}-{anchor}",
        )
        for anchor, title, content in there
    ]
    if alone:
        return element("article", menu, *sections, id=key)
    head = element("summary", element("h2", name(report.facts.name)))
    return element("article", element("details", head, menu, *sections), id=key)


def _perfect(report: RunReport) -> bool:
    return report.measures is not None and not report.measures.worst


@functools.cache
def source(file: str) -> str:
    """A file beside this one."""
    return (resources.files("trainserve.evaluate.report") / file).read_text(encoding="utf-8")
