"""The type of every argument that is a file or folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class FilePath(click.Path):
    """A path, as pathlib.Path. An empty word is refused: pathlib would make it the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("'' is no path; is a variable of the shell not set?", param, ctx)
        return super().convert(value, param, ctx)
