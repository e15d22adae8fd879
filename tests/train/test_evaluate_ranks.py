"""Case DDP-02 with real processes: however many measure, every validation picture counts once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.pictures import write_classes
from support.ranks import Ranks, classifier

MEASURE = """
import json, os
from pathlib import Path
import torch
from trainserve.launch import work
from trainserve.train import architecture, data
from trainserve.train.distributed import join
from trainserve.train.loop import evaluate

spec, output = work.read_spec(os.environ["TRAINSERVE_SPEC"]), Path(os.environ["TRAINSERVE_OUTPUT"])
group = join("cpu")
recipe = work.prepare(spec, work.same_pictures(spec, group, output, 1), group)
torch.manual_seed(0)
model = architecture.build("resnet18", len(recipe.classes), recipe.stem)
pictures = data.Pictures(recipe.listing.root, recipe.listing.val, recipe.preprocessing)
shard = data.val_shard(len(pictures), 3, group.rank, group.world_size)
sums, _ = evaluate(model, data.loader(pictures, shard, 0, pin=False), group.device, "none", recipe)
total = group.summed(sums.values)
if group.is_first:
    (output / "total.json").write_text(json.dumps(total.tolist()))
group.leave()
"""


@pytest.mark.slow
def test_ddp_02_real_processes_count_ten_pictures_once(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "data", {"red": 25, "blue": 25}, size=16)
    totals = []
    for count in (1, 2, 3, 4):
        spec = classifier(folder, train={"batchSize": 12}, model={"imageSize": 16})
        with Ranks(spec, tmp_path / f"of-{count}", count, program=("-c", MEASURE)) as ranks:
            assert ranks.codes() == [0] * count, ranks.log()
        totals.append(json.loads((tmp_path / f"of-{count}" / "total.json").read_text()))
    loss, *counts = totals[0]
    assert counts[-1] == 10
    for other_loss, *other_counts in totals[1:]:
        assert other_counts == counts
        assert other_loss == pytest.approx(loss, rel=1e-5)
