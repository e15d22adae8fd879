"""Golden files: `tests/golden/<case>/in.yaml` is what a test reads, `out.yaml` the whole of what must come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def golden_input(case: str) -> Any:
    return yaml.safe_load((GOLDEN / case / "in.yaml").read_text(encoding="utf-8"))


def check_golden(case: str, documents: list[Any], *, update: bool, name: str = "out.yaml") -> None:
    """Compare all documents as text. A missing file is a failure; `update` writes it instead."""
    text = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    path = GOLDEN / case / name
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    assert path.exists(), f"{path} is missing: run with --update-golden, and read what it wrote"
    assert text == path.read_text(encoding="utf-8"), f"{path} differs: if that is meant, run with --update-golden"


class _Dumper(yaml.SafeDumper):
    """Every part is written out where it stands, and text of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
