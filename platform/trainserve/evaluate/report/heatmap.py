"""The confusion matrix as SVG: rows are the right classes, columns the answers, colours the share of the row. Pure.

Right answers have one colour, mistakes another, in seven steps that make a mistake of 1 % visible. A cell that is not
drawn is zero. Many classes are put in an order in which those that are confused stand together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainserve.evaluate.report import axes
from trainserve.evaluate.report.html import Html, data_block, element, join, printable, shortened

EDGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # upper ends of the steps
CELLS = ((5, 64), (12, 50), (20, 34), (40, 20), (80, 12), (250, 4), (600, 2))  # up to so many classes: px of a cell
CLUSTERED = 30  # from so many classes on
WRITTEN_PX = 30  # cells of this size have their count in them
LINE_PX = 13  # of a label
LETTERS = 18
LETTER_PX = 6.6  # mean width; long labels are cut, so it need not be exact


def heat_map(confusion: np.ndarray, classes: Sequence[str]) -> Html:
    """The matrix int64 [C, C] (row is the right class) as an SVG and what the page's script needs for its cells."""
    count = len(classes)
    cell = next((px for limit, px in CELLS if count <= limit), 1)
    order = clustered(confusion) if count >= CLUSTERED else list(range(count))
    names = [printable(classes[k]) for k in order]
    matrix = confusion[np.ix_(order, order)]
    support = matrix.sum(axis=1)
    labels = [shortened(name, LETTERS) for name in names]
    margin = round(min(LETTERS, max(len(label) for label in labels)) * LETTER_PX) + 26
    size, side = cell * count, margin + cell * count + 8
    rows, columns = np.nonzero(matrix)
    levels: dict[tuple[str, int], list[str]] = {}
    texts = []
    gap = 1 if cell >= 12 else 0
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        level = step_of(matrix[row, column] / support[row])
        kind = "hit" if row == column else "miss"
        x, y = margin + column * cell, margin + row * cell
        inner = cell - gap
        levels.setdefault((kind, level), []).append(f"M{x},{y}h{inner}v{inner}h-{inner}z")
        if cell >= WRITTEN_PX:
            shown = _short(int(matrix[row, column]))
            texts.append(
                element(
                    "text", shown, x=x + inner / 2, y=y + inner / 2 + 4, text_anchor="middle",
                    class_=f"count on-{kind}{level}",
                )
            )  # fmt: skip
    frame = element("rect", x=margin, y=margin, width=size, height=size, class_="frame")
    paths = [
        element("path", d="".join(cells), class_=f"{kind} h{level}") for (kind, level), cells in sorted(levels.items())
    ]
    svg = element(
        "svg",
        frame,
        *paths,
        *texts,
        _labels(labels, margin, cell),
        _axis_names(margin, size),
        width=side,
        height=side,
        viewBox=f"0 0 {side} {side}",
        role="img",
        tabindex=0,
        aria_label=_in_words(matrix, names),
        class_="matrix",
    )
    cells = [[[c, int(matrix[r, c])] for c in np.flatnonzero(matrix[r]).tolist()] for r in range(count)]
    block = data_block(
        {"names": names, "rows": cells, "support": support.tolist(), "cell": cell, "at": margin}, class_="cells"
    )
    return join(element("div", svg, class_="scroll", tabindex=-1), block, _legend())


def step_of(share: float) -> int:
    """Which of the seven steps of colour, from 1, a share above 0 has."""
    return next(number for number, edge in enumerate(EDGES, start=1) if share <= edge + 1e-12)


def clustered(confusion: np.ndarray) -> list[int]:
    """An order of the C classes in which confused ones are neighbours: the leaves of an average-linkage clustering.

    The similarity of two classes is the mean of the two shares with which one is taken for the other.
    """
    from sklearn.cluster import AgglomerativeClustering

    support = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    shares = confusion / support
    similarity = (shares + shares.T) / 2
    distance = 1 - similarity
    np.fill_diagonal(distance, 0)
    tree = AgglomerativeClustering(n_clusters=1, metric="precomputed", linkage="average").fit(distance).children_
    count = len(confusion)
    leaves: dict[int, list[int]] = {index: [index] for index in range(count)}
    for number, (left, right) in enumerate(tree.tolist()):
        # The side with the smaller index first: an order that does not depend on how ties were cut.
        sides = sorted((leaves.pop(left), leaves.pop(right)), key=min)
        leaves[count + number] = [*sides[0], *sides[1]]
    return leaves[max(leaves)]


def _labels(labels: Sequence[str], margin: int, cell: int) -> Html:
    """Names at both sides, every n-th where cells are smaller than a line."""
    every = max(1, -(-LINE_PX // cell))
    parts = []
    for index in range(0, len(labels), every):
        middle = margin + index * cell + cell / 2
        parts.append(element("text", labels[index], x=margin - 6, y=middle + 4, text_anchor="end"))
        turn = f"translate({middle + 4:g},{margin - 6}) rotate(-90)"
        parts.append(element("text", labels[index], transform=turn))
    return element("g", *parts, class_="names")


def _axis_names(margin: int, size: int) -> Html:
    middle = margin + size / 2
    across = element("text", "answered", x=middle, y=12, text_anchor="middle", class_="label")
    down = element(
        "text", "right class", transform=f"translate(12,{middle:g}) rotate(-90)", text_anchor="middle", class_="label"
    )
    return join(across, down)


def _legend() -> Html:
    """The steps of both colours with their upper ends."""
    width, parts = 44, []
    for row, (kind, text) in enumerate((("hit", "right"), ("miss", "wrong"))):
        parts.append(element("text", text, x=0, y=row * 16 + 11))
        for index in range(len(EDGES)):
            x = 42 + index * width
            parts.append(
                element("rect", x=x, y=row * 16, width=width - 2, height=14, class_=f"{kind} h{index + 1}")
            )  # fmt: skip
    for index, edge in enumerate(EDGES):
        parts.append(element("text", f"{100 * edge:.0f} %", x=42 + index * width + 21, y=45, text_anchor="middle"))
    parts.append(element("text", "up to", x=0, y=45))
    words = "Colour: share of the pictures of a row's class, in steps up to 1, 2, 5, 10, 20, 50 and 100 percent."
    svg = element(
        "svg",
        *parts,
        viewBox=f"0 0 {44 + 7 * width} 50",
        width=44 + 7 * width,
        role="img",
        aria_label=words,
        class_="heat-legend",
    )
    return element("p", svg)


def _in_words(matrix: np.ndarray, names: Sequence[str]) -> str:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    text = f"Confusion matrix of {len(names)} classes and {int(matrix.sum())} pictures"
    if not wrong.any():
        return f"{text}; every answer is right"
    row, column = divmod(int(wrong.argmax()), len(names))
    share = axes.share(float(wrong[row, column] / matrix[row].sum()))
    return f"{text}; most often {names[row]} is taken for {names[column]}: {wrong[row, column]} times, {share}"


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count // 1000}k"
