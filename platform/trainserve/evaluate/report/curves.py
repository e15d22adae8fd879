"""The charts of one run, or of several laid over each other. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from trainserve.evaluate.report import axes
from trainserve.evaluate.report.chart import Series, line_chart
from trainserve.evaluate.report.content import RunReport
from trainserve.evaluate.report.html import Html, element

X = "epoch"


def of_one(report: RunReport) -> Html:
    """Loss, accuracy, learning rate and throughput of a run, with where it stopped and went on."""
    told, end = report.history, report.history.facts.get("epochs")
    classes = int(report.history.facts.get("classes", 0))
    losses = [
        Series("training, each step", [(step.epoch, step.loss) for step in told.steps], 0, faint=True),
        Series("training, mean of an epoch", [(float(epoch.epoch), epoch.train_loss) for epoch in told.epochs], 0),
        Series("validation", [(float(epoch.epoch), epoch.val_loss) for epoch in told.epochs], 1),
    ]
    shares = [Series("top-1", [(float(epoch.epoch), epoch.top1) for epoch in told.epochs], 0)]
    if classes > 5:
        shares.append(Series("top-5", [(float(epoch.epoch), epoch.top5) for epoch in told.epochs], 2))
    rate, speed = _rate(report), _speed(report)
    charts = [
        line_chart("Loss", losses, x_label=X, marks=told.marks, x_end=end),
        line_chart("Accuracy on validation pictures", shares, x_label=X, say=axes.share, marks=told.marks, x_end=end),
        line_chart("Learning rate", [rate], x_label=X, marks=told.marks, x_end=end, y_range=_zero(rate)),
        line_chart(
            "Throughput, pictures a second", [speed], x_label=X, marks=told.marks, x_end=end, y_range=_zero(speed)
        ),
    ]
    return element("div", *charts, class_="charts")


def of_several(reports: Sequence[RunReport]) -> Html:
    """The same of several runs, one colour a run."""

    def each(make: str) -> list[Series]:
        found = []
        for style, report in enumerate(reports):
            points = [(float(epoch.epoch), float(getattr(epoch, make))) for epoch in report.history.epochs]
            found.append(Series(report.facts.name, points, style))
        return found

    rates = [_rate(report, style) for style, report in enumerate(reports)]
    speeds = [_speed(report, style) for style, report in enumerate(reports)]
    charts = [
        line_chart("Validation loss", each("val_loss"), x_label=X),
        line_chart("Top-1 on validation pictures", each("top1"), x_label=X, say=axes.share),
        line_chart("Training loss, mean of an epoch", each("train_loss"), x_label=X),
        line_chart("Learning rate", rates, x_label=X, y_range=_zero(*rates)),
        line_chart("Throughput, pictures a second", speeds, x_label=X, y_range=_zero(*speeds)),
    ]
    return element("div", *charts, class_="charts")


def _rate(report: RunReport, style: int | None = None) -> Series:
    label = "learning rate" if style is None else report.facts.name
    return Series(label, [(step.epoch, step.lr) for step in report.history.steps], style or 0)


def _speed(report: RunReport, style: int | None = None) -> Series:
    told = [(step.epoch, step.images_per_second) for step in report.history.steps]
    label = "pictures a second" if style is None else report.facts.name
    return Series(label, [(epoch, rate) for epoch, rate in told if rate is not None], style or 0)


def _zero(*series: Series) -> tuple[float, float] | None:
    """From 0 on: a rate that changes little should look so."""
    values = [y for item in series for _, y in item.points]
    return (0.0, max(values)) if values else None
