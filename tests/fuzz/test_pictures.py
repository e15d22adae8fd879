"""2,000 damaged pictures: training and serving see the same, or refuse for the same reason, and nothing falls over."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from support.mutants import WAYS, mutant, originals
from support.torchserve_context import load_module

FUZZ = Path(__file__).with_name("pictures.py")
SEEDS = 2000


def test_a_seed_is_the_same_picture_everywhere_and_every_way_is_gone():
    unharmed = originals()
    made = [mutant(seed, unharmed) for seed in range(SEEDS)]
    assert {way for what, _ in made for way in what.partition(": ")[2].split(", ")} == set(WAYS)
    assert {what.partition(":")[0] for what, _ in made} == {name for name, _ in unharmed}
    assert len({data for _, data in made}) > 0.95 * SEEDS
    digest = hashlib.sha256(b"".join(data for _, data in made)).hexdigest()
    assert digest[:16] == "a9470441671db853"


@pytest.mark.slow
def test_2000_damaged_pictures(tmp_path):
    fuzz = load_module(FUZZ)
    findings = fuzz.Findings()
    fuzz.fuzz(fuzz.unpacked(tmp_path), 0, SEEDS, findings)
    assert findings.wrong == []
    assert findings.pictures == SEEDS
    assert 0.1 * SEEDS < findings.readable < 0.8 * SEEDS  # else they are not damaged, or all of them are not pictures


def test_a_child_that_dies_or_stands_still_is_a_finding_with_its_seed(tmp_path, monkeypatch):
    fuzz = load_module(FUZZ)
    good = '{"what": "x", "error": null, "same": true, "checked": true, "peakMib": 0, "cpuSeconds": 0}'
    (tmp_path / "child.py").write_text(
        "import os, sys, time\n"
        "for seed in range(int(sys.argv[3]), int(sys.argv[4])):\n"
        "    print('begin', seed, flush=True)\n"
        "    if seed == 1: os.kill(os.getpid(), 11)\n"
        "    if seed == 3: time.sleep(60)\n"
        "    if seed == 5: print('noise', file=sys.stderr)\n"
        f"    print('end', seed, '{good}'.replace('true', 'false', seed == 4), flush=True)\n"
    )
    monkeypatch.setattr(fuzz, "CHILD", tmp_path / "child.py")
    monkeypatch.setattr(fuzz, "LONGEST_S", 1.0)
    findings = fuzz.Findings()
    fuzz.fuzz(tmp_path, 0, 6, findings)
    assert findings.pictures == 4
    said = [wrong.splitlines()[0].partition(": {")[0] for wrong in findings.wrong]
    assert said == [
        "seed 1: the process ended with -11: Fatal Python error: Segmentation fault",
        "seed 3: no end within 1 s",
        "seed 4: training and serving differ",
        "seeds 4 to 6: decoders wrote to stderr: noise",
    ]
