"""What a spec and the pictures together determine, before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainserve.errors import SpecError
from trainserve.spec import derive
from trainserve.spec.classifier import Classifier, TrainSpec
from trainserve.train.data import fits_cache, leftover_notice, loader_workers
from trainserve.train.imagefolder import Listing
from trainserve.train.preprocess import Preprocessing


@dataclass(frozen=True)
class Recipe:
    """Everything `fit` needs to know, derived values included. Sizes are over the whole job unless they say so."""

    classifier: Classifier
    listing: Listing
    stem: str
    preprocessing: Preprocessing
    share: int  # pictures a step of one process
    steps_per_epoch: int
    notices: tuple[str, ...]

    @property
    def train(self) -> TrainSpec:
        return self.classifier.spec.train

    @property
    def classes(self) -> list[str]:
        return list(self.listing.classes)

    @property
    def total_steps(self) -> int:
        return self.train.epochs * self.steps_per_epoch

    @property
    def cached(self) -> bool:
        """Whether decoded pictures stay in memory: at most about twice the resized side, or small as they are."""
        return fits_cache(len(self.listing.train) + len(self.listing.val), 2 * self.preprocessing.resize)

    def loader_processes(self, cores: int, ranks_here: int) -> int:
        """Of each of `ranks_here` training processes on a machine with `cores`."""
        return loader_workers(self.train.workers, cores, ranks_here, self.cached)


def resolve(classifier: Classifier, listing: Listing, median_short_side_px: int, world_size: int) -> Recipe:
    """The recipe for these pictures. Raises SpecError in words where they do not fit together."""
    spec = classifier.spec
    batch_size, pictures = spec.train.batch_size, len(listing.train)
    if batch_size % world_size:
        raise SpecError(
            f"spec.train.batchSize: global batch {batch_size} is not a multiple of {world_size} processes",
            hint=f"use --batch-size {max(1, batch_size // world_size) * world_size}",
        )
    derive.check_pictures(classifier, pictures, median_short_side_px, world_size)
    image_size = derive.image_size(spec.model, median_short_side_px)
    leftover = leftover_notice(pictures, batch_size)
    return Recipe(
        classifier,
        listing,
        derive.stem(spec.model, image_size),
        Preprocessing.for_size(image_size, spec.data.max_pixels),
        batch_size // world_size,
        derive.steps_per_epoch(pictures, batch_size),
        tuple(notice for notice in (*listing.notices, leftover) if notice),
    )


def golden_samples(listing: Listing, count: int = 24) -> Sequence[Path]:
    """Validation pictures (training ones where there are none), spread over the classes."""
    samples = sorted(listing.val or listing.train, key=lambda sample: (sample.label, sample.path))
    stride = max(1, len(samples) // count)
    return [listing.root / sample.path for sample in samples[::stride]]
