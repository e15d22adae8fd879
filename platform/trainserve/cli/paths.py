"""The type of every argument that is a file or folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trainserve.errors import UserError


class FilePath(click.Path):
    """A path, as pathlib.Path. An empty word is refused: pathlib would make it the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("'' is no path; is a variable of the shell not set?", param, ctx)
        return super().convert(value, param, ctx)


class KubeconfigPath(FilePath):
    """The file of `--kubeconfig`; a pipe does, too. Raises UserError where there is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path: Path = super().convert(value, param, ctx)
        if not path.exists() or path.is_dir():
            raise UserError(f"--kubeconfig {path}: no such file", hint="leave it out to use $KUBECONFIG")
        return path
