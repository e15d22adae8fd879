"""The README tells the truth: its tree is the tree, its blocks run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import environment

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"(<!-- (?P<mark>.*?) -->\n)?```console\n(?P<text>.*?)```", re.DOTALL)


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
    top -= {"platform/", "manifests/", "README.md", ".gitignore"}
    missing = (folders | top) - set(named)
    assert missing == set()


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_blocks_marked_run_do_what_they_say(tmp_path: Path) -> None:
    commands = [
        line.removeprefix("$ ")
        for block in BLOCK.finditer(README)
        if block["mark"] == "run"
        for line in block["text"].splitlines()
    ]
    assert len(commands) == 5
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    env = environment(tmp_path / "home")
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    for command in commands:
        words = shlex.split(command)
        if words[1] == "train":  # the recipe takes minutes; the block is about the steps
            words += ["--epochs", "1", "--warmup-epochs", "0"]
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=400)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "digits.mar").is_file()


def test_every_block_is_run_or_says_why_not() -> None:
    marks = [block["mark"] for block in BLOCK.finditer(README)]
    assert all(mark == "run" or (mark or "").startswith("not run: ") for mark in marks), marks
