"""Tables that a click on a heading sorts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainserve.evaluate.report.html import Html, element


@dataclass(frozen=True)
class Cell:
    """What is shown, and the number or text by which it is sorted."""

    shown: str
    key: str | float | None = None  # None: what is shown


Row = Sequence[Cell | str]


def table(caption: str, heads: Sequence[str], rows: Sequence[Row], *, sortable: bool = False, texts: int = 1) -> Html:
    """Rows under headings in a box of its own that scrolls; the first `texts` columns are text, the others numbers.

    The first cell of a row is its heading.
    """
    head = [
        element(
            "th", element("button", text, type="button") if sortable else text, scope="col",
            class_=None if index < texts else "number", aria_sort="none" if sortable else None,
        )
        for index, text in enumerate(heads)
    ]  # fmt: skip
    body = [element("tr", *(_cell(cell, index, texts) for index, cell in enumerate(row))) for row in rows]
    found = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_="sortable" if sortable else None,
    )
    return element("div", found, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _cell(cell: Cell | str, index: int, texts: int) -> Html:
    found = cell if isinstance(cell, Cell) else Cell(cell)
    key = None if found.key is None else found.key if isinstance(found.key, str) else f"{found.key:.9g}"
    kind = None if index < texts else "number"
    if index == 0:
        return element("th", found.shown, scope="row", data_key=key)
    return element("td", found.shown, class_=kind, data_key=key)
