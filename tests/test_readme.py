"""The README tells the truth: its tree is the tree. Its blocks are run by test_docs.py."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def tree() -> list[str]:
    """Paths of the README's tree, from the repository's root."""
    text = README.split("## The tree")[1].split("```text\n")[1].split("```")[0]
    paths = []
    for line in text.splitlines():
        name = line.split()[0]
        paths.append(f"platform/trainserve/{name}" if line.startswith("  ") else name)
    return paths


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_everything_in_the_tree_is_there() -> None:
    assert [path for path in tree() if not (ROOT / path).exists()] == []


def test_everything_that_is_there_is_in_the_tree() -> None:
    named = tree()
    folders = {f"{Path(path).parent}/" for path in tracked() if path.startswith("platform/") and path.endswith(".py")}
    top = {path.split("/")[0] + ("/" if "/" in path else "") for path in tracked()}
    top -= {"platform/", "manifests/", "README.md", ".gitignore", ".dockerignore"}
    missing = (folders | top) - set(named)
    assert missing == set()


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
