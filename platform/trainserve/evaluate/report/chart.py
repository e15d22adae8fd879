"""Curves as SVG: readable without a script; the page's script adds what is under the pointer. Pure.

Colours are classes of page.css, so that dark mode and print can change them; each series has its own dashes too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainserve.evaluate.report import axes
from trainserve.evaluate.report.history import Mark, thinned
from trainserve.evaluate.report.html import Html, data_block, element, join, printable, shortened

WIDTH, HEIGHT = 460, 260  # of the view box: its text stays readable at 340 px
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40
POINTS = 400  # of a series; more are means of neighbours
COLOURS = 6
KINDS = {"stopped": "stopped", "resumed": "went on from a checkpoint", "restarted": "began again"}
DOTS = 40  # a series with at most so many points shows each


@dataclass(frozen=True)
class Series:
    """One curve: (x, y) in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0  # which colour and dashes
    faint: bool = False  # a noisy one behind another


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    say: Callable[[float], str] = axes.number,
    marks: Sequence[Mark] = (),
    note: str | None = None,
    y_range: tuple[float, float] | None = None,
    x_end: float | None = None,
) -> Html:
    """A figure with axes, legend and curves. Series without points are left out; without any there is a sentence.

    `say` writes a value of y; `x_end` is where the x axis ends at least (a run that has not ended yet).
    """
    shown = [
        Series(item.name, thinned(list(item.points), POINTS), item.style, item.faint) for item in series if item.points
    ]
    if not shown:
        return element("figure", element("figcaption", title), element("p", "Nothing yet.", class_="note"))
    xs = [x for item in shown for x, _ in item.points] + [mark.epoch for mark in marks]
    ys = [y for item in shown for _, y in item.points]
    x_low, x_high = min(0.0, *xs), max([*xs, x_end or 0.0])
    x_high = x_high if x_high > x_low else x_low + 1
    y_ticks = axes.ticks(*(y_range or (min(ys), max(ys))))
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def px(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def py(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    x_ticks = [tick for tick in axes.ticks(x_low, x_high, 6) if x_low <= tick <= x_high * 1.0001]
    parts = [_grid(x_ticks, y_ticks, px, py, say, x_label)]
    parts += [_mark(mark, px(mark.epoch)) for mark in marks]
    parts += [_curve(item, px, py) for item in sorted(shown, key=lambda item: not item.faint)]
    svg = element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}: {_in_words(shown, say)}",
        tabindex=0,
        class_="lines",
    )
    values = [
        {
            "name": printable(item.name),
            "points": [[round(px(x), 1), round(py(y), 1), _round(x), say(y)] for x, y in item.points],
        }
        for item in shown
    ]
    block = data_block({"x": x_label, "series": values, "top": TOP, "bottom": HEIGHT - BOTTOM}, class_="points")
    many = any(len(item.points) > POINTS for item in series)
    means = f"Each of {POINTS} points is the mean of its neighbours." if many else None
    notes = [element("p", text, class_="note") for text in (note, means) if text]
    legend = _legend(shown if len(shown) > 1 else [], marks)
    return element("figure", element("figcaption", title), legend, svg, block, *notes, class_="chart")


def _grid(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    px: Callable[[float], float],
    py: Callable[[float], float],
    say: Callable[[float], str],
    x_label: str,
) -> Html:
    bottom = HEIGHT - BOTTOM
    lines = [element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=py(y), y2=py(y), class_="grid") for y in y_ticks]
    lines.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"))
    texts = [element("text", say(y), x=LEFT - 7, y=py(y) + 4, text_anchor="end") for y in y_ticks]
    texts += [element("text", axes.number(x), x=px(x), y=bottom + 17, text_anchor="middle") for x in x_ticks]
    texts.append(
        element("text", x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, text_anchor="middle", class_="label")
    )
    return join(*lines, *texts)


def _curve(series: Series, px: Callable[[float], float], py: Callable[[float], float]) -> Html:
    style = f"s{series.style % COLOURS}"
    path = "M" + "L".join(f"{px(x):.1f},{py(y):.1f}" for x, y in series.points)
    line = element("path", d=path, class_=f"curve {style}{' faint' * series.faint}")
    if len(series.points) > DOTS or series.faint:
        return line
    dots = [element("circle", cx=px(x), cy=py(y), r=3, class_=f"dot {style}") for x, y in series.points]
    return join(line, *dots)


def _mark(mark: Mark, x: float) -> Html:
    title = element("title", f"{mark.text} (step {mark.step})")
    line = element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="mark")
    flag = element("path", d=f"M{x:.1f},{TOP}l-5,-8h10z", class_="flag")
    return element("g", title, line, flag)


def _legend(series: Sequence[Series], marks: Sequence[Mark]) -> Html | None:
    items = []
    for item in series:
        style = f"curve s{item.style % COLOURS}{' faint' * item.faint}"
        stroke = element("line", x1=0, x2=26, y1=6, y2=6, class_=style)
        swatch = element("svg", stroke, width=26, height=12, aria_hidden="true")
        items.append(element("li", swatch, element("bdi", shortened(item.name, 32))))
    if marks:
        kinds = dict.fromkeys(KINDS[mark.kind] for mark in marks)
        flag = element("path", d="M8,10l-5,-8h10z", class_="flag")
        items.append(element("li", element("svg", flag, width=16, height=12, aria_hidden="true"), ", ".join(kinds)))
    return element("ul", *items, class_="legend") if items else None


def _in_words(series: Sequence[Series], say: Callable[[float], str]) -> str:
    """For those who do not see it."""
    return "; ".join(
        f"{item.name} from {say(item.points[0][1])} to {say(item.points[-1][1])}, "
        f"lowest {say(min(y for _, y in item.points))}, highest {say(max(y for _, y in item.points))}"
        for item in series
    )


def _round(x: float) -> float:
    return round(x, 2)
