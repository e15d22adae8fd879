"""Every flag and verb that a hint names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click

import trainserve
from trainserve.cli.main import VERBS, platform_command

ROOT = Path(trainserve.__file__).parent
FOREIGN = {"--help", "--dereference", "--hard-dereference"}  # the last two are of tar


def commands() -> Iterator[click.Command]:
    context = click.Context(platform_command)
    for verb in VERBS:
        command = platform_command.get_command(context, verb)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from command.commands.values()


def hints() -> Iterator[tuple[str, str]]:
    """(file:line, text) of each literal given as a hint."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (isinstance(node, ast.keyword) and node.arg == "hint") or (
                isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "hint" for t in node.targets)
            ):
                for child in ast.walk(node.value):
                    if isinstance(child, ast.Constant) and isinstance(child.value, str):
                        yield f"{path.name}:{child.lineno}", child.value


def test_flags_in_hints_exist() -> None:
    known = {
        word for command in commands() for option in command.params for word in (*option.opts, *option.secondary_opts)
    }
    wrong = [
        (where, flag)
        for where, text in hints()
        for flag in re.findall(r"--[a-z][a-z-]+", text)
        if flag not in known | FOREIGN
    ]
    assert wrong == []


def test_verbs_in_hints_exist() -> None:
    texts = list(hints())
    assert len(texts) > 40
    named = [(where, verb) for where, text in texts for verb in re.findall(r"\bplatform ([a-z]+)", text)]
    assert named
    assert [(where, verb) for where, verb in named if verb not in VERBS] == []
