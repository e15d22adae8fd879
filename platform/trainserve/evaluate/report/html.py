"""HTML and SVG elements whose text and attributes are escaped, whatever they hold. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from typing import Any

WANTED = "\n\t\u00a0\u200c\u200d"  # line breaks; joiners, which Persian words and many emoji need
_NUMBER = re.compile(r"(\d) %")
EMPTY = {"br", "hr", "img", "input", "link", "meta"}


class Html(str):
    """Text that is HTML already; every other text is escaped before it gets into one."""

    __slots__ = ()


def element(tag: str, *children: str | None, **attributes: str | float | bool | None) -> Html:
    """`<tag ...>children</tag>`.

    A trailing underscore of an attribute goes (`class_`), others become dashes (`aria_label`); None and False leave it
    out, True has no value. There is no `style`: the page's policy forbids it.
    """
    assert "style" not in attributes, "inline styles are forbidden by the page's own policy"
    words = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        plain = name.rstrip("_").replace("_", "-")
        words.append(plain if value is True else f'{plain}="{escape(_text(value))}"')
    head = f"<{' '.join(words)}>"
    return Html(head) if tag in EMPTY else Html(f"{head}{join(*children)}</{tag}>")


def join(*children: str | None) -> Html:
    """Children after each other; None is nothing."""
    return Html(
        "".join(child if isinstance(child, Html) else _escaped(child) for child in children if child is not None)
    )


def printable(text: str) -> str:
    """Without what cannot be seen, such as a change of direction or a byte that is no UTF-8: that is spelt out."""
    return "".join(
        letter if letter.isprintable() or letter in WANTED else letter.encode("unicode_escape").decode()
        for letter in text
    )


def name(text: str, limit: int | None = None) -> Html:
    """A class's or file's name, in its own direction of writing; a long one is cut, and whole when pointed at."""
    short = shortened(text, limit) if limit else text
    return element("bdi", short, title=text if short != text else None)


def shortened(text: str, limit: int) -> str:
    """At most `limit` letters, with an ellipsis in the middle: the ends are what tells long names apart."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"


def data_block(value: Any, **attributes: str) -> Html:
    """JSON for the page's script. Nothing in it can end the element: `<` is written as an escape."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return element("script", Html(text), type="application/json", **attributes)


def source_hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style sheet."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _text(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return printable(str(value))


def _escaped(text: str) -> str:
    return escape(_NUMBER.sub("\\1\u00a0%", printable(text)))  # a number and its % stay in one line
