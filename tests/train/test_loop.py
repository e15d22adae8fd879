from __future__ import annotations

import pytest
import torch
from torch import nn

from support import pictures
from support.ranks import classifier
from trainserve.errors import DataError, SpecError
from trainserve.train import data
from trainserve.train.imagefolder import scan
from trainserve.train.loop import evaluate
from trainserve.train.recipe import golden_samples, resolve


def recipe(folder, world=1, **spec):
    listing = scan(folder, val_split=0.5)
    return resolve(classifier(folder, **{"train": {"batchSize": 4}, **spec}), listing, 8, world)


@pytest.fixture
def folder(tmp_path):
    return pictures.write_classes(tmp_path, {"a": 10, "b": 10}, size=8)


def test_ddp_02_accuracy_is_the_same_over_one_to_four_processes(folder):
    made = recipe(folder)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    val = data.Pictures(folder, made.listing.val, made.preprocessing)
    found = []
    for world in (1, 2, 3, 4):
        total = torch.zeros(4, dtype=torch.float64)
        for rank in range(world):
            batches = data.loader(val, data.val_shard(len(val), 3, rank, world), 0, pin=False)
            sums, skipped = evaluate(model, batches, torch.device("cpu"), "none", made)
            assert skipped == 0
            total += sums.values
        found.append(total)
    assert found[0][3] == 10
    for total in found[1:]:
        assert torch.equal(total[1:], found[0][1:])
        assert total[0] == pytest.approx(float(found[0][0]), rel=1e-5)


def test_a_picture_that_turned_bad_stops_or_is_counted(folder):
    made = recipe(folder)
    (folder / made.listing.val[3].path).write_bytes(b"x")
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))

    def run(chosen):
        val = data.Pictures(folder, chosen.listing.val, chosen.preprocessing)
        batches = data.loader(val, data.val_shard(len(val), 3, 0, 1), 0, pin=False)
        return evaluate(model, batches, torch.device("cpu"), "none", chosen)

    with pytest.raises(DataError, match=made.listing.val[3].path):
        run(made)
    sums, skipped = run(recipe(folder, data={"skipBad": True}))
    assert (sums.count, skipped) == (9, 1)


def test_the_recipe_follows_the_pictures(folder):
    made = recipe(folder, world=2)
    assert (made.stem, made.preprocessing.image_size, made.share, made.steps_per_epoch) == ("small", 16, 2, 2)
    assert "2 of 10 pictures" in made.notices[-1]


@pytest.mark.parametrize(
    ("world", "spec", "message"),
    [
        (3, {}, "4 is not a multiple of 3 processes"),
        (4, {"model": {"imageSize": 8}}, "one picture a process"),
        (1, {"train": {"batchSize": 11}}, "more than the 10 training pictures"),
    ],
)
def test_what_does_not_fit_is_refused(folder, world, spec, message):
    with pytest.raises(SpecError, match=message):
        recipe(folder, world, **spec)


def test_golden_pictures_cover_the_classes(folder):
    chosen = golden_samples(recipe(folder).listing, count=4)
    assert {path.parent.name for path in chosen} == {"a", "b"}
    assert all(path.exists() for path in chosen)
