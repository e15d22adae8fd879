"""What an image gets of the lock file is all that its extras need, and nothing of the rest."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support.imageprograms import program

ROOT = Path(__file__).parents[2]
lockfile = program("lockfile")
LOCKED = lockfile.read((ROOT / "requirements.lock").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = [extra for extra in PROJECT["project"]["optional-dependencies"] if extra != "dev"]


def _closure(*extras: str, cuda: bool = True) -> dict[str, object]:
    return {each.name: each for each in lockfile.closure(LOCKED, lockfile.wanted(PROJECT, extras), cuda=cuda)}


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_a_package_needs_comes_with_it(extra: str) -> None:
    chosen = _closure(extra)
    missing = set()
    for name in chosen:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another kind of machine
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                missing |= {lockfile.normal(need.name)} - set(chosen)
    assert missing == set()


def test_every_block_of_the_lock_file_is_read() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    blocks = [block for each in LOCKED.values() for block in each.blocks]
    assert sorted(block[0] for block in blocks) == sorted(line.rstrip(" \\") for line in lines if line[:1].isalnum())
    assert all(any("--hash=sha256:" in line for line in block) for block in blocks)


def test_a_package_with_two_versions_is_asked_for_in_both() -> None:
    text = "a==2 ; python_version < '3.12' \\\n    --hash=sha256:aa\n"
    text += "a==3 ; python_version >= '3.12' \\\n    --hash=sha256:bb\n"
    locked = lockfile.read(text)
    assert lockfile.as_requirements(locked.values()) == text


def test_the_controller_needs_no_torch_and_no_tool_of_developers() -> None:
    assert not {"torch", "torchvision", "numpy", "pytest", "mypy", "ruff", "hatchling"} & set(_closure("operator"))
    assert {"kubernetes", "aiohttp", "prometheus-client", "click"} <= set(_closure("operator"))


def test_cpu_builds_of_torch_need_nothing_of_cuda() -> None:
    left = set(_closure("train")) - set(_closure("train", cuda=False))
    assert left
    assert all(lockfile.OF_CUDA.fullmatch(name) for name in left)
    assert "torch" in _closure("train", cuda=False)


def test_a_requirement_is_written_as_it_is_locked() -> None:
    text = (
        "# made by hand\nfoo-bar==1.2 ; sys_platform == 'linux' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "    # via\n    #   me (pyproject.toml)\n    #   other[x]\nother==2 \\\n    --hash=sha256:cc\n    # via me\n"
    )
    locked = lockfile.read(text)
    assert {name: set(each.needed_by) for name, each in locked.items()} == {
        "foo-bar": {"me", "other"},
        "other": {"me"},
    }
    assert lockfile.as_requirements(lockfile.closure(locked, ["other"])) == (
        "foo-bar==1.2 ; sys_platform == 'linux' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "other==2 \\\n    --hash=sha256:cc\n"
    )


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"no such extra 'gpu': pyproject\.toml has train, "):
        lockfile.wanted(PROJECT, ["gpu"])
    with pytest.raises(ValueError, match="has no nothing: run make generate"):
        lockfile.closure(LOCKED, ["nothing"])
