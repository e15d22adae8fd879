"""What the network got right and wrong: heat map, classes, pairs, mistakes, calibration. Pure."""

from __future__ import annotations

from trainserve.evaluate.report import axes, bars
from trainserve.evaluate.report.content import Example, FirstLayer, PairExamples, Picture, RunReport
from trainserve.evaluate.report.heatmap import CLUSTERED, heat_map
from trainserve.evaluate.report.html import Html, element, join, name
from trainserve.evaluate.report.tables import Cell, Row, table

LETTERS = 28  # of a class's name in a caption


def confusion(report: RunReport) -> Html | None:
    """The matrix."""
    if report.measures is None:
        return None
    classes = [item.name for item in report.measures.classes]
    words = "Each row is a class, each column an answer; what is right lies on the diagonal."
    if len(classes) >= CLUSTERED:
        words += " Classes that are confused stand together. Point at a cell, or go with the arrow keys, to read it."
    else:
        words += " Point at a cell, or go with the arrow keys, for the share."
    return join(element("p", words, class_="note"), heat_map(report.measures.confusion, classes))


def per_class(report: RunReport) -> Html | None:
    """Precision, recall and F1, the weakest first."""
    if report.measures is None:
        return None
    rows = []
    for item in sorted(report.measures.classes, key=lambda found: (found.support == 0, found.f1)):
        known = item.support > 0
        dash = Cell("–", -1.0)
        rows.append(
            [
                Cell(name(item.name, 40), item.name),
                Cell(axes.share(item.precision), item.precision) if item.predicted else dash,
                Cell(axes.share(item.recall), item.recall) if known else dash,
                Cell(join(axes.share(item.f1), " ", bars.small_bar(item.f1)), item.f1) if known else dash,
                Cell(str(item.support), item.support),
                Cell(str(item.predicted), item.predicted),
            ]
        )
    average = report.measures.macro
    words = (
        "Precision: how often this answer is right. Recall: how many of the class's pictures are recognised. F1: the "
        f"harmonic mean of both; its mean over the classes is {axes.share(average.f1)}."
    )
    heads = ["class", "precision", "recall", "F1", "pictures", "answered"]
    return join(element("p", words, class_="note"), table("Every class, the weakest first", heads, rows, sortable=True))


def pairs(report: RunReport) -> Html | None:
    """Most confused pairs, with pictures where there are."""
    if report.measures is None:
        return None
    if not report.pairs:
        return element("p", "No class was taken for another.")
    rest = len(report.measures.confused) - len(report.pairs)
    more = element("p", f"{rest} rarer pairs are in the matrix.", class_="note") if rest else None
    there = any(example.seen is not None for pair in report.pairs for example in pair.mistakes)
    words = (
        "The surest mistakes of each pair, with the probability of the wrong answer; beside them what it knows well."
        if there
        else "Each with the pictures that were taken for another class."
    )
    found = element("ol", *(_pair(pair) for pair in report.pairs), class_="pairs")
    return join(element("p", words, class_="note"), found, more)


def _pair(pair: PairExamples) -> Html:
    times = f"{pair.count} picture{'s' * (pair.count != 1)}, {axes.share(pair.share)} of "
    head = element(
        "p", name(pair.actual, LETTERS), " taken for ", name(pair.predicted, LETTERS),
        element("span", times, name(pair.actual, LETTERS), class_="note"), class_="title",
    )  # fmt: skip
    figures = [_thumb(example, axes.share(example.confidence)) for example in pair.mistakes]
    typical = [
        _thumb(example, join("typical ", name(example.actual, 14)))
        for example in (pair.typical_actual, pair.typical_predicted)
        if example is not None
    ]
    shown = [figure for figure in figures if figure is not None]
    sure = [figure for figure in typical if figure is not None]
    if not shown:
        return element("li", head)
    groups = [element("div", *group, class_="group") for group in (shown, sure) if group]
    return element("li", head, element("div", *groups, class_="thumbs"))


def _thumb(example: Example, words: str) -> Html | None:
    if example.seen is None:
        return None
    return element("figure", image(example.seen, example.picture), element("figcaption", words), class_="thumb")


def worst(report: RunReport) -> Html | None:
    """The surest mistakes; of a network without one, what it was least sure of."""
    if report.measures is None or not report.worst:
        return None
    perfect = not report.measures.worst
    intro = (
        f"{'Not one mistake' if not report.measures.unanswered else 'No answer that is a number is wrong'}. "
        "These are the right answers it was least sure of."
        if perfect
        else f"The mistakes it was surest of, out of {len(report.measures.worst)}, at most two of a pair."
    )
    if report.worst[0].seen is None:
        rows: list[Row] = [
            [Cell(name(item.picture, 60), item.picture), name(item.actual, 40), name(item.predicted, 40),
             Cell(axes.share(item.confidence), item.confidence)]
            for item in report.worst
        ]  # fmt: skip
        return join(
            element("p", intro, class_="note"),
            table("Pictures", ["picture", "right class", "answered", "sure by"], rows, sortable=True, texts=3),
        )
    cards = [_mistake(item) for item in report.worst]
    return join(element("p", f"{intro} {report.cam_words}", class_="note"), element("ul", *cards, class_="mistakes"))


def _mistake(item: Example) -> Html:
    if item.actual == item.predicted:
        head = element("p", name(item.actual, LETTERS), class_="title")
    else:
        head = element("p", name(item.actual, LETTERS), " taken for ", name(item.predicted, LETTERS), class_="title")
    figures = [
        element("figure", image(picture), element("figcaption", *words), class_="thumb")
        for picture, words in (
            (item.seen, ["picture"]),
            (item.why_predicted, ["speaks for ", name(item.predicted, 14)]),
            (item.why_actual, ["speaks for ", name(item.actual, 14)]),
        )
        if picture is not None
    ]
    where = element("p", f"{axes.share(item.confidence)} sure · ", name(item.picture, 44), class_="note")
    return element("li", head, element("div", *figures, class_="thumbs"), where)


def calibration(report: RunReport) -> Html | None:
    """Reliability diagram and ECE."""
    if report.measures is None:
        return None
    words = (
        "Bars: how often answers with this probability are right. On the dashed line a network that says 80 % is "
        "right in 80 of 100 cases; below it, it is too sure of itself. Shaded: how far off. "
        f"Expected calibration error (ECE, 15 bins): {axes.share(report.measures.ece)}."
    )
    return element(
        "figure", element("figcaption", "Reliability"), bars.reliability(report.measures.bins),
        element("p", words, class_="note"), class_="chart",
    )  # fmt: skip


def first_layer(found: FirstLayer | None) -> Html | None:
    """Filters and maps of the first convolution."""
    if found is None:
        return None
    parts = [_large(found.filters, f"The filters: {found.words}, colours stretched to the full range")]
    if found.maps is not None:
        parts.append(_large(found.maps, "What each filter makes of one picture, bright where it answers"))
    if found.picture is not None:
        parts.insert(1, element("figure", image(found.picture), element("figcaption", "The picture"), class_="thumb"))
    return element("div", *parts, class_="layers")


def _large(picture: Picture, words: str) -> Html:
    return element("figure", image(picture), element("figcaption", words), class_="grid-picture")


def image(picture: Picture, title: str | None = None) -> Html:
    """An `img` of its natural size."""
    return element(
        "img", src=picture.url, width=picture.width, height=picture.height, alt=picture.alt, title=title,
        class_="pixelated" if picture.pixelated else None,
    )  # fmt: skip
