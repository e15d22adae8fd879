"""Preflight between real ranks of `torch.distributed`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.pictures import write_classes
from support.ranks import Ranks, classifier

pytestmark = pytest.mark.slow

HANGS = """
import sys, time
from trainserve.launch.preflight import network
from trainserve.train.distributed import join

network.REDUCE_S = 1.0
group = join("cpu")
if group.rank == 1:
    time.sleep(8)  # takes no part
    raise SystemExit(0)
try:
    network.all_reduce(group)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_job_that_is_well_says_so_in_one_line(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "data", {"red": 12, "blue": 12}, size=16)
    spec = classifier(folder, train={"batchSize": 4, "epochs": 1}, model={"imageSize": 16})
    with Ranks(spec, tmp_path / "out", 2) as ranks:
        assert ranks.codes() == [0, 0], ranks.log()
        told = [line for line in ranks.log().splitlines() if "preflight" in line]
        assert len(told) == 1
        assert "preflight: 2 ranks on cpu, all-reduce " in told[0]
        assert "MB/s bus bandwidth" in told[0]
        assert told[0].endswith(" s")
        assert "preflight" not in ranks.log(1)


def test_what_one_rank_finds_ends_all_with_one_line(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "data", {"red": 12, "blue": 12}, size=16)
    (tmp_path / "file").write_text("")
    where = {"TRAINSERVE_OUTPUT": str(tmp_path / "file" / "output"), "HOSTNAME": "tiny-master-0"}
    with Ranks(classifier(folder, train={"batchSize": 4}), tmp_path / "out", 2, env=where) as ranks:
        assert ranks.codes() == [3, 200], "rank 0 found it, the other one is a victim"
    for rank in (0, 1):
        error = json.loads((tmp_path / "out" / f"error-{rank}.json").read_text())["message"]["message"]
        assert error == (
            f"preflight: rank 0 (tiny-master-0): the output {tmp_path / 'file' / 'output'} cannot be written: "
            "Not a directory"
        )
        assert "Traceback" not in ranks.log(rank)


def test_an_all_reduce_that_hangs_is_over_in_bounded_time(tmp_path: Path) -> None:
    spec = classifier(tmp_path)
    with Ranks(spec, tmp_path / "out", 2, program=("-c", HANGS)) as ranks:
        ranks.codes(60)
        assert "PeerLost rank 0: an all-reduce of 1,024 bytes over 2 ranks did not end in 1 s" in ranks.log(), (
            ranks.log()
        )
        assert "NetworkPolicies" in ranks.log()
