"""The page on compatibility names tests that exist, for every line."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs/reference/pytorchjob.md"


def rows() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("| ") and not line.startswith("| Training Operator |")]


def defined() -> set[str]:
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(TESTS.rglob("test_*.py")))
    return set(re.findall(r"^ *(?:async )?def (test_\w+)\(", text, flags=re.MULTILINE))


def test_every_line_of_the_page_names_tests_that_exist() -> None:
    there = defined()
    wrong = {row: named for row in rows() if not (named := _named(row)) or named - there}
    assert wrong == {}


def test_every_defect_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    told = {int(number) for group in re.findall(r"\(defects? ([\d, ]+)\)", page) for number in group.split(", ")}
    assert told == set(range(1, 15))
    tested = {int(name.split("_")[2]) for name in defined() if name.startswith("test_defect_")}
    assert tested == told


def _named(row: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", row.rsplit(" | ", 1)[1]))
