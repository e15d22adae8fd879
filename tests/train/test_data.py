from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support import pictures
from trainserve.errors import SpecError
from trainserve.spec.classifier import AugmentSpec
from trainserve.spec.derive import steps_per_epoch
from trainserve.train.data import (
    IGNORED,
    Pictures,
    TrainOrder,
    augmented,
    collate,
    leftover_notice,
    loader,
    loader_workers,
    val_shard,
)
from trainserve.train.imagefolder import scan
from trainserve.train.preprocess import Preprocessing, preprocess

PRE = Preprocessing.for_size(16, 10**8)
AUGMENT = AugmentSpec()


def steps(pictures_: int, batch: int, seed: int, epoch: int, world: int, first: int = 0) -> list[list[list[int]]]:
    """Indexes by step, then by rank."""
    ranks = []
    for rank in range(world):
        order = TrainOrder(pictures_, batch, seed, rank, world)
        order.epoch, order.first_step = epoch, first
        ranks.append([[index for _, index in keys] for keys in order])
    return [list(step) for step in zip(*ranks, strict=True)]


@given(st.integers(8, 100), st.sampled_from([4, 8]), st.integers(0, 9), st.integers(0, 9))
def test_ddp_03_one_two_and_four_processes_see_the_same_samples_each_step(n, batch, seed, epoch):
    whole, two, four = (steps(n, batch, seed, epoch, world) for world in (1, 2, 4))
    flat = [[list(chain(*step)) for step in run] for run in (whole, two, four)]
    assert flat[0] == flat[1] == flat[2]
    seen = list(chain(*flat[0]))
    assert len(seen) == len(set(seen)) == n // batch * batch
    assert steps(n, batch, seed, epoch, 4, first=1) == four[1:]


def test_ddp_03_epochs_differ_and_runs_agree():
    epochs = [steps(64, 8, 1, epoch, 2) for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert epochs == [steps(64, 8, 1, epoch, 2) for epoch in range(3)]
    assert steps(64, 8, 2, 0, 2) != epochs[0]


@given(st.integers(0, 50), st.integers(1, 5), st.integers(1, 8))
def test_ddp_02_validation_shards_partition_the_pictures(n, world, batch):
    seen = [index for rank in range(world) for keys in val_shard(n, batch, rank, world) for _, index in keys]
    assert sorted(seen) == list(range(n))


@pytest.mark.parametrize(("n", "batch"), [(33, 32), (65, 32)])
def test_ddp_05_the_incomplete_batch_is_left_out_and_said(n, batch):
    assert steps_per_epoch(n, batch) == n // batch
    assert f"1 of {n} pictures" in leftover_notice(n, batch)
    assert leftover_notice(64, 32) is None


def test_ddp_05_fewer_pictures_than_a_batch_are_refused():
    with pytest.raises(SpecError, match="global batch 64 is more than the 40 training pictures") as caught:
        steps_per_epoch(40, 64)
    assert "--batch-size 40" in str(caught.value)


@pytest.fixture
def listing(tmp_path):
    pictures.write_classes(tmp_path, {"a": 6, "b": 6}, size=20)
    return scan(tmp_path)


def test_augmentation_depends_on_seed_epoch_and_index_alone(listing):
    first, second = (Pictures(listing.root, listing.train, PRE, seed=3, augment=AUGMENT) for _ in range(2))
    torch.manual_seed(1)
    a = first[(1, 4)][0]
    torch.manual_seed(2)
    assert torch.equal(second[(1, 4)][0], a)
    second[(1, 5)]
    assert torch.equal(second[(1, 4)][0], a)
    assert not torch.equal(first[(2, 4)][0], a)
    other = Pictures(listing.root, listing.train, PRE, seed=4, augment=AUGMENT)
    assert not torch.equal(other[(1, 4)][0], a)


def test_augmentation_leaves_torchs_generator_alone(listing):
    before = torch.get_rng_state()
    Pictures(listing.root, listing.train, PRE, augment=AUGMENT)[(0, 0)]
    assert torch.equal(torch.get_rng_state(), before)


def test_flip_and_jitter_can_be_switched_off():
    image = pictures.corners(32, 32)
    still = AugmentSpec.model_validate({"cropScale": [1, 1], "flip": 0, "jitter": 0})
    flipped = AugmentSpec.model_validate({"cropScale": [1, 1], "flip": 1, "jitter": 0})
    for seed in range(5):
        assert augmented(image, still, 32, seed).getpixel((3, 3)) == pictures.CORNERS[0]
        assert augmented(image, flipped, 32, seed).getpixel((3, 3)) == pictures.CORNERS[1]


def test_validation_pictures_are_what_serving_computes(listing):
    tensor, _, _ = Pictures(listing.root, listing.val, PRE)[(0, 0)]
    assert torch.equal(tensor, preprocess((listing.root / listing.val[0].path).read_bytes(), PRE))


def test_the_cache_is_bounded_and_changes_nothing(listing):
    cached = Pictures(listing.root, listing.train, PRE, augment=AUGMENT, cache_bytes=3 * 20 * 20 * 4)
    plain = Pictures(listing.root, listing.train, PRE, augment=AUGMENT)
    for _ in range(2):
        for index in range(len(plain)):
            assert torch.equal(cached[(0, index)][0], plain[(0, index)][0])
    assert len(cached.cache) == 3


def test_img_03_a_picture_that_turns_bad_is_named_and_not_counted(listing):
    path = listing.train[1].path
    (listing.root / path).write_bytes(b"x")
    dataset = Pictures(listing.root, listing.train, PRE)
    batch = collate([dataset[(0, 0)], dataset[(0, 1)]])
    assert batch.labels.tolist() == [0, IGNORED]
    assert torch.equal(batch.images[0], batch.images[1])
    assert batch.problems[0].startswith(f"{path}: not a picture")
    assert collate([dataset[(0, 1)]]).images.shape == (1, 3, 16, 16)


@pytest.mark.slow
def test_loader_processes_give_the_same_batches_in_every_epoch(listing):
    def batches(workers):
        dataset = Pictures(listing.root, listing.train, PRE, seed=1, augment=AUGMENT)
        order = TrainOrder(len(dataset), 4, 1, 0, 1)
        loaded = loader(dataset, order, workers, pin=False)
        found = []
        for order.epoch in range(2):
            found += [batch.images for batch in loaded]
        return torch.cat(found)

    assert torch.equal(batches(0), batches(2))


@pytest.mark.parametrize(
    ("asked", "cores", "processes", "cached", "workers"),
    [
        (None, 2, 4, False, 0),
        (None, 16, 1, False, 8),
        (None, 16, 4, False, 3),
        (None, 16, 4, True, 0),
        (5, 2, 4, True, 5),
    ],
)
def test_loader_processes_follow_the_cores(asked, cores, processes, cached, workers):
    assert loader_workers(asked, cores, processes, cached) == workers
