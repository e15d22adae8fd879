"""A Dockerfile as its instructions, and the rules that ours keep."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

PINNED = re.compile(r"[a-z0-9.-]+(/[a-z0-9._-]+)+:[A-Za-z0-9._-]+@sha256:[0-9a-f]{64}")
LABELS = ("title", "description", "version", "revision", "source", "licenses", "base.name")
# What leaves files that no image needs, fetches what nothing checks, or asks for rights.
SUSPICIOUS = {
    r"\b(curl|wget)\b": "fetches what nothing checks",
    r"\|\s*(ba)?sh\b": "runs what it was sent",
    r"\bsudo\b": "asks for rights",
    r"\bchmod\b.*(777|\+s)": "everybody may write, or be root",
    r"\bpip3?\s+install\b": "installs beside install.py, so without the hashes of the lock file",
    r"\bapt(-get)?\s+(install|upgrade|dist-upgrade)\b": "brings packages of no fixed version",
}


@dataclass(frozen=True)
class Instruction:
    """`RUN x \\` and the lines that go on with it are one; `line` is its first, counted from 1."""

    word: str
    rest: str
    line: int


def instructions(text: str) -> list[Instruction]:
    """Of a whole Dockerfile, without comments. Raises ValueError for a word that there is not."""
    found: list[Instruction] = []
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        whole = line
        while whole.endswith("\\"):
            whole = whole[:-1].rstrip() + " " + next(lines)[1].strip()
        word, _, rest = whole.strip().partition(" ")
        if word not in WORDS:
            raise ValueError(f"line {number}: {word!r} is no instruction")
        found.append(Instruction(word, rest.strip(), number))
    return found


WORDS = {
    *("FROM", "ARG", "RUN", "COPY", "ADD", "ENV", "WORKDIR", "USER", "ENTRYPOINT", "CMD", "LABEL", "EXPOSE", "VOLUME"),
    *("STOPSIGNAL", "SHELL", "HEALTHCHECK", "ONBUILD"),
}


def stages(found: list[Instruction]) -> list[list[Instruction]]:
    """The instructions from each FROM to the next; what stands before the first is left out."""
    starts = [index for index, each in enumerate(found) if each.word == "FROM"] + [len(found)]
    return [found[start:end] for start, end in itertools.pairwise(starts)]


def defaults(found: list[Instruction]) -> dict[str, str]:
    """Build arguments before the first FROM, with the values that they have if nobody gives others."""
    args = [each.rest for each in found[: [each.word for each in found].index("FROM")] if each.word == "ARG"]
    return {name: value.strip('"') for name, _, value in (arg.partition("=") for arg in args)}


def problems(text: str) -> Iterator[str]:
    """Each broken rule in words, with its line."""
    found = instructions(text)
    arguments = defaults(found)
    parts = stages(found)
    names = {words[2] for each in found if each.word == "FROM" and len(words := each.rest.split()) == 3}
    if len(parts) < 2:
        yield "one stage: what builds would be in the image"
    for each in found:
        yield from (f"line {each.line}: {problem}" for problem in _of_one(each, arguments, names))
    yield from _of_the_last(parts[-1])


def _of_one(each: Instruction, arguments: dict[str, str], names: set[str]) -> Iterator[str]:
    if each.word == "FROM":
        image = re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], ""), each.rest.split()[0])
        if image not in names and not PINNED.fullmatch(image):
            yield f"FROM {image or each.rest} is not pinned by registry, tag and digest"
    if each.word == "ADD":
        yield "ADD unpacks and fetches: COPY does neither"
    if each.word in {"ONBUILD", "VOLUME", "SHELL"}:
        yield f"{each.word} changes what whoever uses the image gets"
    if each.word == "COPY" and each.rest.split()[0] in {".", "./"}:
        yield "COPY . takes whatever lies there"
    if each.word == "COPY" and "--from=" in each.rest and "--chown=" not in each.rest:
        yield "COPY --from without --chown: whose the files are is left to the engine"
    if each.word == "USER" and not re.fullmatch(r"[1-9]\d*:\d+", each.rest):
        yield f"USER {each.rest}: runAsNonRoot needs a number that is not 0"
    if each.word in {"ENTRYPOINT", "CMD"} and not each.rest.startswith("["):
        yield f"{each.word} through a shell, which SIGTERM does not pass"
    if each.word == "RUN":
        yield from (why for pattern, why in SUSPICIOUS.items() if re.search(pattern, each.rest))
    if each.word in {"ENV", "ARG"} and re.search(r"(?i)(password|secret|token)\w*=", each.rest):
        yield f"{each.word} with a secret, which stays in the image"


def _of_the_last(stage: list[Instruction]) -> Iterator[str]:
    words = [each.word for each in stage]
    for needed in ("USER", "ENTRYPOINT", "WORKDIR", "LABEL"):
        if needed not in words:
            yield f"the last stage has no {needed}"
    if "USER" in words and any(each.word == "RUN" for each in stage[words.index("USER") :]):
        yield "RUN after USER: what it writes is the user's"
    told = " ".join(each.rest for each in stage if each.word == "LABEL")
    for label in LABELS:
        if f"org.opencontainers.image.{label}=" not in told:
            yield f"the last stage has no label org.opencontainers.image.{label}"
