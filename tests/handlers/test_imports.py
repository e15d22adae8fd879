"""The handler travels alone: in a worker there is neither this package nor, for its tests, TorchServe's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HANDLERS = Path(__file__).parents[2] / "handlers"
ALLOWED = {"PIL", "safetensors", "torch"}  # beside the standard library: what every worker has
STANDARD_LIBRARY = __import__("sys").stdlib_module_names


def imported(source: str) -> set[str]:
    """Top-level names of all modules that a source imports, at its head or later."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else (node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {str(word.value) for word in node.args if isinstance(word, ast.Constant)}
    return found


@pytest.mark.parametrize("path", sorted(HANDLERS.glob("*.py")), ids=lambda path: path.name)
def test_a_handler_imports_neither_trainserve_nor_ts(path: Path) -> None:
    foreign = imported(path.read_text(encoding="utf-8")) - STANDARD_LIBRARY - ALLOWED
    assert foreign == set()


def test_late_and_indirect_imports_are_seen() -> None:
    source = "def f():\n    from trainserve.errors import X\n    import ts.context\n    import_module('torchvision')"
    assert imported(source) == {"trainserve", "ts", "torchvision"}
