"""Damaged pictures through the decoders of training and serving: `python tests/fuzz/pictures.py --seeds 2000:10000`.

Children decode; this process watches: a child that dies or is silent for LONGEST_S is a finding, with the seed of the
picture it had, and another one goes on after it. `--one SEED` writes a mutant to a file, to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
CHILD = TESTS / "fuzz" / "child.py"
LONGEST_S = 20.0  # of wall time without a word from a child: a loaded machine included
ROOM_MIB = 1024  # address space of a child beyond its start
PEAK_MIB = 200  # what a picture of at most child.MAX_PIXELS may add to a child's resident memory
CPU_S = 5.0  # of one picture, three decodes
# libtiff prints what its decoders meet, and Pillow leaves it on; the exception comes as well.
LIBTIFF = re.compile(r"(tempfile\.tif|MissingRequired|_?O?(TIFF|JPEG|Fax|LZW|ZIP|PackBits)\w*): ")


@dataclass
class Findings:
    """What went wrong, and what there was."""

    wrong: list[str] = field(default_factory=list)
    pictures: int = 0
    readable: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    peak_mib: float = 0.0
    slowest: tuple[float, int] = (0.0, -1)

    def add(self, seed: int, found: dict[str, Any]) -> None:
        self.pictures += 1
        self.readable += found["error"] is None
        self.reasons[(found["error"] or "readable").partition(":")[0][:40]] += 1
        self.peak_mib = max(self.peak_mib, found["peakMib"])
        self.slowest = max(self.slowest, (found["cpuSeconds"], seed))
        for true, words in (
            (not found["same"], "training and serving differ"),
            (not found["checked"], "training and its check differ"),
            (found["peakMib"] > PEAK_MIB, "too much memory"),
            (found["cpuSeconds"] > CPU_S, "too slow"),
            ("memory" in (found["error"] or ""), "out of memory"),
            ("\n" in (found["error"] or "") or len(found["error"] or "") > 200, "a reason of more than a line"),
        ):
            if true:
                self.wrong.append(f"seed {seed}: {words}: {found}")


def fuzz(archive: Path, first: int, end: int, findings: Findings) -> None:
    """All seeds from `first` to `end`, with as many children, one after the other, as it takes."""
    with tempfile.TemporaryDirectory(prefix="fuzz") as scratch:
        while first < end:
            first = _one_child(archive, Path(scratch), first, end, findings)


def _one_child(archive: Path, scratch: Path, first: int, end: int, findings: Findings) -> int:
    words = [sys.executable, str(CHILD), str(archive), str(scratch), str(first), str(end)]
    env = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONFAULTHANDLER": "1", "MALLOC_ARENA_MAX": "1"}
    noise = scratch / "stderr"
    at, silent = first - 1, False
    with (
        noise.open("wb") as stderr,
        subprocess.Popen([*words, str(ROOM_MIB)], env=env, stdout=subprocess.PIPE, stderr=stderr) as child,
    ):
        try:
            for line in _lines(child):
                word, number, *rest = line.split(" ", 2)
                at = int(number)
                if word == "end":
                    findings.add(at, json.loads(rest[0]))
        except TimeoutError:
            silent = True
        finally:
            child.kill() if child.poll() is None and (silent or sys.exc_info()[0]) else None
        code = child.wait()
    said = "\n".join(line for line in noise.read_text(errors="replace").splitlines() if not LIBTIFF.match(line))
    if silent:
        findings.wrong.append(f"seed {at}: no end within {LONGEST_S:.0f} s")
    elif code != 0:
        findings.wrong.append(f"seed {at}: the process ended with {code}: {said[-2000:]}")
    elif said:
        findings.wrong.append(f"seeds {first} to {end}: decoders wrote to stderr: {said[:500]}")
    if (silent or code) and at < first:  # it did not even begin
        return end
    return at + 1


def _lines(child: subprocess.Popen[bytes]) -> Iterator[str]:
    """Whole lines of its stdout. Raises TimeoutError when none comes for long; starting may take longer."""
    assert child.stdout is not None
    patience, rest = 6 * LONGEST_S, b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while selector.select(patience):
            data = os.read(child.stdout.fileno(), 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                patience = LONGEST_S
                yield line.decode()
    raise TimeoutError


def unpacked(folder: Path) -> Path:
    """The folder of an unpacked .mar, as a TorchServe worker sees it."""
    from support import bundles
    from support.torchserve_context import extract

    return extract(bundles.mar(folder), folder / "archive")


def main() -> int:
    sys.path.insert(0, str(TESTS))
    from support.mutants import mutant, originals

    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--seeds", default="0:2000", metavar="FIRST:END")
    parser.add_argument("--one", type=int, metavar="SEED", help="write this mutant to a file and say how it was made")
    given = parser.parse_args()
    if given.one is not None:
        what, data = mutant(given.one, originals())
        Path(f"mutant-{given.one}").write_bytes(data)
        print(f"mutant-{given.one}: {what}")
        return 0
    first, _, end = given.seeds.partition(":")
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        fuzz(unpacked(Path(folder)), int(first), int(end), findings)
    for wrong in findings.wrong:
        print(wrong)
    print(f"{findings.pictures} pictures, {findings.readable} of them readable, {len(findings.wrong)} findings")
    slowest_s, slowest = findings.slowest
    print(f"peak {findings.peak_mib:.0f} MiB above the start; slowest {slowest_s} s (seed {slowest})")
    for reason, count in findings.reasons.most_common(20):
        print(f"{count:6}  {reason}")
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
