"""Python tracebacks in text: the last one of a log, its frames, and which of them are the user's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

SHOWN_LINES = 14
SHOWN_FRAMES = 4
_BEGIN = "Traceback (most recent call last):"
_INNER = "Original Traceback"  # of a data worker, in the text of the error that its trainer raises
_FATAL = "Fatal Python error: "
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+),? in (?P<function>.+)$')
_LIBRARY = re.compile(
    r"(^|/)(site-packages|dist-packages)/|/lib(64)?/python3[^/]*/|^<|(^|/)trainserve/[a-z_]+/[^/]*\.py$|"
    r"(^|/)trainserve/[a-z_]+\.py$"
)


@dataclass(frozen=True)
class Frame:
    """One line of a stack."""

    file: str
    line: int
    function: str
    code: str = ""

    @property
    def own(self) -> bool:
        """Whether it is in the user's code: neither Python's, nor an installed package's, nor ours."""
        return _LIBRARY.search(self.file) is None

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}" + (f": {self.code}" if self.code else "")


def lines_of_rank(log: str, rank: int | None, ranks: Sequence[int]) -> str:
    """Of a log that several ranks share, the lines of one, without their mark `[rank N] `."""
    if rank is None or len(ranks) < 2:
        return log
    mark = f"[rank {rank}] "
    return "\n".join(line.removeprefix(mark) for line in log.splitlines() if line.startswith(mark))


def last(log: str) -> str:
    """The last traceback, or stack of a fatal error, of a log, up to the line of the error; "" where there is none."""
    lines = log.splitlines()
    begins = [n for n, line in enumerate(lines) if _begins(line) or line.startswith(_FATAL)]
    if not begins:
        return ""
    begin = begins[-1]
    if lines[begin].startswith(_FATAL):
        end = next((n for n in range(begin + 1, len(lines)) if lines[n].startswith("Extension modules")), len(lines))
        return "\n".join(lines[begin:end])
    end = _end(lines, begin + 1)
    while end + 1 < len(lines) and lines[end + 1].startswith(_INNER):  # the error's text has a traceback of its own
        end = _end(lines, end + 2)
    # The error may have several lines; what a logger or another program says after it is not part of it.
    return "\n".join(lines[begin : min(len(lines), end + 1)])


def errors(text: str) -> str:
    """The lines of a traceback that are no stack: the errors, and what stands between them."""
    return "\n".join(line for line in text.splitlines() if line.strip() and not line[:1].isspace())


def _begins(line: str) -> bool:
    return line.rstrip().endswith(_BEGIN) and not line.startswith(_INNER)


def _end(lines: Sequence[str], start: int) -> int:
    """The first line from `start` that belongs to no frame."""
    end = start
    while end < len(lines) and (not lines[end].strip() or lines[end][:1].isspace()):
        end += 1
    return end


def frames(text: str) -> list[Frame]:
    """All frames in order, the innermost last; of a fatal error's stack, which has it first, turned round."""
    found: list[Frame] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _FRAME.match(line)
        if match is None:
            continue
        code = lines[number + 1].strip() if number + 1 < len(lines) else ""
        code = "" if _FRAME.match(lines[number + 1] if code else "") or set(code) <= {"^", "~", " "} else code
        found.append(Frame(match["file"], int(match["line"]), match["function"].strip(), code))
    innermost_first = "(most recent call first)" in text
    return found[::-1] if innermost_first else found


def excerpt(text: str) -> list[str]:
    """What to show of a traceback: the user's own frames first, then its end."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if len(lines) <= SHOWN_LINES:
        return lines
    own = [frame for frame in frames(text) if frame.own][-SHOWN_FRAMES:]
    innermost_first = "(most recent call first)" in text
    end = lines[:SHOWN_LINES] if innermost_first else lines[-SHOWN_LINES:]
    shown = "\n".join(end)
    missing = [frame for frame in own if f'"{frame.file}", line {frame.line}' not in shown]
    return [*(f"  {frame}" for frame in missing), *(["  ..."] if missing else []), *end]
