"""The pages tell the truth: every command in them is run, or its block says why not.

A block is marked by the comment above it: `run`, `run, ends with 65`, or `not run: the reason`. Blocks run in the order
of PAGES, in one workspace, as one reader would; a command that ends in ` &` runs until the page ends.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import environment
from trainserve.cli.main import VERBS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"(<!-- (?P<mark>.*?) -->\n\n?)?```(?P<kind>console|python|yaml|bash|sh)\n(?P<text>.*?)```", re.DOTALL
)
MARK = re.compile(r"run(, ends with (?P<code>\d+))?|not run: (?P<reason>.+)")
READY_S = 120.0  # for a server started with &


def pages() -> list[Path]:
    """README and every page of docs, in the order of the index; decisions apart: these tell of their day."""
    found = [page for page in sorted(DOCS.rglob("*.md")) if page.parent.name != "decisions"]
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    linked = [(DOCS / link).resolve() for link in re.findall(r"\]\(([^)#\s]+\.md)\)", index)]
    order = [ROOT / "README.md", *linked]
    return sorted([*found, order[0]], key=lambda page: order.index(page) if page in order else len(order))


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[re.Match[str]]:
    return BLOCK.finditer(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", pages(), ids=named)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    wrong = [
        block["text"]
        for block in blocks(page)
        if block["kind"] in ("console", "python") and not MARK.fullmatch(block["mark"] or "")
    ]
    assert wrong == []


@pytest.mark.parametrize("page", pages(), ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    if page.name == "spec.md":
        text = ""  # generated, without links, and full of patterns
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    linked = {(DOCS / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)\)", index) if "://" not in link}
    assert [named(page) for page in pages()[1:] if page.resolve() not in linked and page != DOCS / "README.md"] == []


def test_the_table_of_words_has_every_verb_and_no_other() -> None:
    table = (DOCS / "reference/verbs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `platform ([a-z]+)[^|]*` \|", table, flags=re.MULTILINE)
    assert sorted(set(rows)) == sorted(VERBS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_blocks_marked_run_do_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    env = environment(tmp_path / "home")
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    ran = 0
    for page in pages():
        servers: list[subprocess.Popen[str]] = []
        try:
            for block in blocks(page):
                mark = MARK.fullmatch(block["mark"] or "")
                if block["kind"] not in ("console", "python") or mark is None or mark["reason"]:
                    continue
                for command in commands(block):
                    ran += 1
                    if command[-1] == "&":
                        servers.append(serving(command[:-1], tmp_path, env))
                        continue
                    done = subprocess.run(
                        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=400
                    )
                    told = f"{named(page)}: $ {shlex.join(command)}\n{done.stdout}{done.stderr}"
                    assert done.returncode == int(mark["code"] or 0), told
                    assert "Traceback" not in done.stderr, told
        finally:
            for server in servers:
                stop(server)
    assert ran > 30


def commands(block: re.Match[str]) -> list[list[str]]:
    """The commands of a block, as words."""
    if block["kind"] == "python":
        return [[sys.executable, "-c", block["text"]]]
    text = block["text"].replace("\\\n", " ")
    found = [shlex.split(line.removeprefix("$ "), comments=True) for line in text.splitlines() if line.startswith("$ ")]
    for words in found:
        if words[:3] == ["platform", "data", "get"]:
            words += ["--limit", "20"]  # of each class
        if "--nodes" in words:
            words[words.index("--nodes") + 1] = "2"  # e2e/test_runs.py has four
        if words[:2] == ["platform", "train"] and not {"--epochs", "--dry-run", "--resume", "--help"} & set(words):
            words += ["--epochs", "1", "--warmup-epochs", "0"]  # a recipe takes minutes; the page is about the steps
    return found


def serving(words: list[str], cwd: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    """A server in the background; returns when it has printed where it listens."""
    server = subprocess.Popen(words, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    os.set_blocking(server.stdout.fileno(), False)
    deadline = time.monotonic() + READY_S
    while not server.stdout.readline():
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            pytest.fail(f"$ {shlex.join(words)}: {server.communicate()[1]}")
        time.sleep(0.2)
    return server


def stop(server: subprocess.Popen[str]) -> None:
    """Ctrl-C, and a kill where that does not help."""
    server.send_signal(signal.SIGINT)
    try:
        server.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        server.kill()
        server.communicate()
