"""The result: of one run as a headline, of several as a table. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from trainserve.evaluate.report import axes, bars, curves
from trainserve.evaluate.report.content import RunReport
from trainserve.evaluate.report.html import Html, element, join, name
from trainserve.evaluate.report.interval import wilson
from trainserve.evaluate.report.summary import meaning
from trainserve.evaluate.report.tables import Cell, Row, table
from trainserve.kube.names import RUNNING, SUCCEEDED
from trainserve.observe.words import duration


def headline(report: RunReport) -> Html:
    """The number that counts, how sure it is, and what it means."""
    state = report.facts.state
    badge = element(
        "span", state, class_=f"badge {'good' if state == SUCCEEDED else 'busy' if state == RUNNING else 'bad'}"
    )
    parts = [element("p", badge, f" {report.facts.message}" if report.facts.message and state != SUCCEEDED else None)]
    if report.facts.advice:
        parts.append(element("p", "What to do: ", element("code", report.facts.advice)))
    counted = report.top1
    if counted is not None:
        right, total = counted
        low, high = wilson(right, total)
        what = report.asked or "validation pictures, best epoch so far"
        number = element("p", axes.share(right / total), class_="big")
        words = element(
            "p",
            f"right: {right:,} of {total:,} {what}; 95 % interval {axes.share(low)} to {axes.share(high)}",
            class_="of",
        )
        parts.append(element("div", number, words, bars.interval(low, high, right / total), class_="headline"))
    parts.append(element("dl", *_tiles(report), class_="tiles"))
    parts.append(element("ul", *(element("li", text) for text in meaning(report)), class_="meaning"))
    if report.missing:
        items = element("ul", *(element("li", text) for text in report.missing))
        parts.append(element("div", element("strong", "What this report lacks"), items, class_="missing"))
    return join(*parts)


def _tiles(report: RunReport) -> list[Html]:
    told, measures = report.history, report.measures
    classes = len(measures.classes) if measures else int(told.facts.get("classes", 0))
    found = {
        "top-5": axes.share(report.top5) if report.top5 is not None and classes > 5 else None,
        "macro F1": axes.share(measures.macro.f1) if measures else None,
        "loss": axes.number(report.loss) if report.loss is not None else None,
        "ECE": axes.share(measures.ece) if measures else None,
        "classes": str(classes) if classes else None,
        "epochs": _epochs(report),
        "training time": duration(told.seconds) if told.seconds else None,
        "restarts": str(report.facts.restarts) if report.facts.restarts else None,
    }
    return [
        element("div", element("dt", label), element("dd", value))
        for label, value in found.items()
        if value is not None
    ]


def _epochs(report: RunReport) -> str | None:
    planned = report.history.facts.get("epochs")
    return f"{len(report.history.epochs)} of {planned}" if planned else None


def curves_and_numbers(report: RunReport) -> Html | None:
    """The charts, with the numbers of each epoch and what happened beneath, folded."""
    told = report.history
    if not told.steps and not told.epochs:
        return element("p", "The run has not made a step yet.")
    rows = [
        [
            str(epoch.epoch), str(epoch.step), axes.number(epoch.train_loss), axes.number(epoch.val_loss),
            axes.share(epoch.top1), axes.share(epoch.top5),
        ]
        for epoch in told.epochs
    ]  # fmt: skip
    heads = ["epoch", "step", "training loss", "validation loss", "top-1", "top-5"]
    folded = (
        element("details", element("summary", "Every epoch in numbers"), table("Epochs", heads, rows)) if rows else None
    )
    marks = [
        element("li", f"{mark.text}, at step {mark.step} (epoch {mark.epoch:.2f})")
        for mark in sorted(told.marks, key=lambda mark: mark.time)
    ]
    happened = element("ul", *marks, class_="note") if marks else None
    notices = [element("li", text) for text in told.notices]
    told_ = (
        element("details", element("summary", "What the training said"), element("ul", *notices)) if notices else None
    )
    return join(curves.of_one(report), happened, folded, told_)


def several(reports: Sequence[RunReport]) -> Html:
    """Runs beside each other: results, curves, and the settings in which they differ."""
    rows: list[Row] = []
    for number, report in enumerate(reports):
        counted = report.top1
        measures = report.measures
        if counted is None:
            result, sure = Cell("–", -1.0), Cell("–", -1.0)
        else:
            right, total = counted
            low, high = wilson(right, total)
            result = Cell(axes.share(right / total), right / total)
            sure = Cell(f"{axes.share(low)} to {axes.share(high)}", low)
        loss, top5 = report.loss, report.top5
        rows.append(
            [
                Cell(element("a", name(report.facts.name), href=f"#run-{number}"), report.facts.name),
                report.facts.state,
                result,
                sure,
                Cell("–", -1.0) if top5 is None else Cell(axes.share(top5), top5),
                Cell("–", 1e9) if loss is None else Cell(axes.number(loss), loss),
                Cell(axes.share(measures.macro.f1), measures.macro.f1) if measures else Cell("–", -1.0),
                Cell(axes.share(measures.ece), measures.ece) if measures else Cell("–", 1e9),
                Cell(duration(report.history.seconds), report.history.seconds),
            ]
        )
    heads = ["run", "state", "top-1", "95 % interval", "top-5", "loss", "macro F1", "ECE", "training time"]
    best = element("p", _verdict(reports), class_="note")
    parts = [
        ("Results", join(table("Runs", heads, rows, sortable=True, texts=2), best)),
        ("Curves", curves.of_several(reports)),
        ("What differs in the settings", _differences(reports)),
    ]
    return join(*(element("section", element("h2", title), content) for title, content in parts))


def _verdict(reports: Sequence[RunReport]) -> str:
    """Whether the best is better than what chance alone makes of equal runs."""
    counted = [(report.top1[0] / report.top1[1], report) for report in reports if report.top1 is not None]
    if len(counted) < 2:
        return "Only runs with a result can be compared."
    ordered = sorted(counted, key=lambda item: -item[0])
    (_, best), (_, second) = ordered[0], ordered[1]
    assert best.top1 is not None
    assert second.top1 is not None
    low, _ = wilson(*best.top1)
    _, high = wilson(*second.top1)
    if len({report.top1[1] for _, report in counted if report.top1 is not None}) > 1:
        return "The runs were measured on different numbers of pictures: their results cannot be compared directly."
    if low > high:
        return f"{best.facts.name} is better than {second.facts.name}: their 95 % intervals do not overlap."
    return (
        f"{best.facts.name} has the best top-1, but its 95 % interval overlaps that of {second.facts.name}: on so few "
        "pictures the difference may be chance. platform compare looks at the pictures one by one, which tells more."
    )


def _differences(reports: Sequence[RunReport]) -> Html:
    fields = {setting.field: None for report in reports for setting in report.settings}
    rows: list[Row] = []
    for field in fields:
        values = [next((item.value for item in report.settings if item.field == field), "–") for report in reports]
        if len(set(values)) > 1:
            rows.append([Cell(element("code", field)), *values])
    if not rows:
        return element("p", "Nothing: all settings are the same.")
    heads = ["field", *(report.facts.name for report in reports)]
    return table("Settings that differ", heads, rows, texts=len(heads))
