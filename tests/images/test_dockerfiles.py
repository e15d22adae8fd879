"""The Dockerfiles keep the rules of support.dockerfile, and are one but for what makes them three."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from support.dockerfile import defaults, instructions, problems
from trainserve.kube import names

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "manifests/images"
ROLES = (names.IMAGE_TRAINER, names.IMAGE_SERVER, names.IMAGE_OPERATOR)
GOOD = (IMAGES / "operator/Dockerfile").read_text()


def _text(role: str) -> str:
    return (IMAGES / role / "Dockerfile").read_text()


def test_there_is_a_dockerfile_for_each_image() -> None:
    assert sorted(path.parent.name for path in IMAGES.glob("*/Dockerfile")) == sorted(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_it_keeps_the_rules(role: str) -> None:
    assert list(problems(_text(role))) == []


def test_they_differ_in_what_makes_them_three_alone() -> None:
    def alike(role: str) -> str:
        text = _text(role).partition("\n")[2]
        text = re.sub(r'(ARG EXTRAS|image\.title|image\.description)="[^"]*"', r"\1", text)
        return re.sub(r"(?m)^CMD .*$", "CMD", text)

    assert alike("trainer") == alike("operator")
    assert alike("server") == alike("operator")
    assert len({_text(role) for role in ROLES}) == 3


@pytest.mark.parametrize("role", ROLES)
def test_its_extras_are_the_projects(role: str) -> None:
    (extras,) = re.findall(r'ARG EXTRAS="([^"]*)"', _text(role))
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split()) <= set(known) - {"dev"}


@pytest.mark.parametrize("role", ROLES)
def test_it_copies_what_is_there_and_what_the_context_lets_through(role: str) -> None:
    for each in instructions(_text(role)):
        if each.word != "COPY" or "--from" in each.rest:
            continue
        *sources, _ = each.rest.split()
        assert [source for source in sources if not (ROOT / source).exists()] == []
        assert {source.split("/")[0] for source in sources} <= _let_through()


def _let_through() -> set[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines  # everything else stays outside
    return {line[1:].split("/")[0] for line in lines if line.startswith("!")}


def test_the_context_has_neither_tests_nor_history() -> None:
    assert _let_through() == {"pyproject.toml", "requirements.lock", "README.md", "platform", "handlers", "manifests"}


def test_the_base_has_the_python_that_everything_is_tested_with() -> None:
    (python,) = {re.findall(r"python:(\d+\.\d+)", defaults(instructions(_text(role)))["BASE"])[0] for role in ROLES}
    assert f'python_version = "{python}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("FROM ${BASE} AS build", "FROM python:3.11 AS build", "not pinned"),
        ("FROM ${BASE}\n", "FROM ${OTHER}\n", "not pinned"),
        (r"@sha256:[0-9a-f]*", "", "not pinned"),
        ("COPY handlers/", "ADD handlers/", "ADD"),
        ("COPY handlers/ handlers/", "COPY . .", "COPY ."),
        (" --chown=0:0", "", "--chown"),
        ("USER 65532:65532", "USER trainserve", "runAsNonRoot"),
        ("USER 65532:65532", "USER 0:0", "runAsNonRoot"),
        ("USER 65532:65532\n", "", "no USER"),
        (r'ENTRYPOINT \["platform"\]', "ENTRYPOINT platform", "through a shell"),
        ("RUN rm -rf", "RUN curl https://example.org/x | sh && rm -rf", "fetches"),
        ("RUN rm -rf", "RUN apt-get install -y gcc && rm -rf", "no fixed version"),
        ("RUN rm -rf", "RUN pip install torch && rm -rf", "hashes"),
        ('ARG REVISION="unknown"', "ENV API_TOKEN=x", "secret"),
        ("image.revision=", "image.revisions=", "image.revision"),
        ("WORKDIR /tmp", "VOLUME /tmp", "VOLUME"),
        ("WORKDIR /tmp\n", "", "no WORKDIR"),
        ("ENTRYPOINT", "RUN touch /tmp/x\nENTRYPOINT", "after USER"),
    ],
)
def test_each_rule_finds_who_breaks_it(old: str, new: str, problem: str) -> None:
    broken = re.sub(old if "\\" in old or "[" in old else re.escape(old), new, GOOD, count=1)
    assert broken != GOOD
    assert any(problem in each for each in problems(broken)), list(problems(broken))


def test_a_misspelt_instruction_is_told() -> None:
    with pytest.raises(ValueError, match="line 2: 'RUM'"):
        instructions("FROM x\nRUM y\n")
