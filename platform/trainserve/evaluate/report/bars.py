"""The reliability diagram, and small bars inside tables, as SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from trainserve.evaluate.measures import CalibrationBin
from trainserve.evaluate.report import axes
from trainserve.evaluate.report.html import Html, element, join

WIDTH, PLOT, LEFT, TOP = 460, 220, 66, 12
RIGHT, COUNTS, GAP = 24, 44, 34  # COUNTS: height of the histogram below


def reliability(bins: Sequence[CalibrationBin]) -> Html:
    """How often an answer is right (bars) against how sure the network was (x); on the diagonal it is calibrated."""
    wide = WIDTH - LEFT - RIGHT
    bottom = TOP + PLOT

    def px(x: float) -> float:
        return LEFT + x * wide

    def py(y: float) -> float:
        return bottom - y * PLOT

    total = max(1, sum(item.count for item in bins))
    most = max(1, *(item.count for item in bins))
    parts = [element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=py(y / 5), y2=py(y / 5), class_="grid") for y in range(6)]
    parts += [element("text", f"{20 * y} %", x=LEFT - 7, y=py(y / 5) + 4, text_anchor="end") for y in range(6)]
    base = bottom + GAP + COUNTS
    for item in bins:
        if item.accuracy is None or item.confidence is None:
            continue
        words = (
            f"{item.count} pictures ({axes.share(item.count / total)}) with probability {100 * item.lower:.0f} to "
            f"{100 * item.upper:.0f} %: sure by {axes.share(item.confidence)} on average, right in "
            f"{axes.share(item.accuracy)}"
        )
        x, width = px(item.lower) + 1, px(item.upper) - px(item.lower) - 2
        tall = max(1.5, item.count / most * COUNTS)
        top, low = max(item.accuracy, item.confidence), min(item.accuracy, item.confidence)
        parts.append(
            element(
                "g",
                element("title", words),
                element("rect", x=x, y=py(item.accuracy), width=width, height=item.accuracy * PLOT, class_="bar"),
                element("rect", x=x, y=py(top), width=width, height=(top - low) * PLOT, class_="gap"),
                element("circle", cx=px(item.confidence), cy=py(item.accuracy), r=3.5, class_="dot s1"),
                element("rect", x=x, y=base - tall, width=width, height=tall, class_="bar quiet"),
            )
        )
    parts.append(element("line", x1=px(0), y1=py(0), x2=px(1), y2=py(1), class_="ideal"))
    parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"))
    parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis"))
    parts += [element("text", f"{20 * x} %", x=px(x / 5), y=bottom + 17, text_anchor="middle") for x in range(6)]
    parts.append(element("text", "pictures", x=LEFT - 7, y=base - COUNTS / 2 + 4, text_anchor="end"))
    parts.append(
        element("text", "probability of the answer", x=px(0.5), y=base + 18, text_anchor="middle", class_="label")
    )
    told = "; ".join(
        f"sure by {axes.share(item.confidence)}, right in {axes.share(item.accuracy)} of {item.count}"
        for item in bins
        if item.accuracy is not None and item.confidence is not None
    )
    return element(
        "svg", *parts, viewBox=f"0 0 {WIDTH} {base + 24}", role="img", aria_label=f"Reliability diagram: {told}"
    )


def small_bar(value: float) -> Html:
    """A share from 0 to 1 as a bar beside its number."""
    back = element("rect", width=60, height=8, rx=2, class_="track")
    return element(
        "svg", back, element("rect", width=60 * value, height=8, rx=2, class_="bar"), width=60, height=8,
        aria_hidden="true", class_="small-bar",
    )  # fmt: skip


def interval(low: float, high: float, value: float) -> Html:
    """A share from 0 to 1 with its interval, on a scale of 0 to 100 %."""
    wide = 300
    parts = [
        element("rect", x=4, y=14, width=wide, height=6, rx=3, class_="track"),
        element("rect", x=4 + low * wide, y=11, width=max(2.0, (high - low) * wide), height=12, rx=3, class_="range"),
        element("circle", cx=4 + value * wide, cy=17, r=6, class_="point"),
    ]
    parts += [
        element("text", f"{mark} %", x=4 + mark / 100 * wide, y=40, text_anchor=anchor)
        for mark, anchor in ((0, "start"), (50, "middle"), (100, "end"))
    ]
    words = f"{axes.share(value)}, with 95 % confidence between {axes.share(low)} and {axes.share(high)}"
    return element("svg", join(*parts), viewBox="0 0 308 44", role="img", aria_label=words, class_="interval")
