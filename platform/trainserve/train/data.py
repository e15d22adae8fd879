"""Which pictures a rank takes at each step, and how they are changed: functions of (seed, epoch, index) alone.

So neither the number of processes, nor the number of loader workers, nor a resume changes what the network sees.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ColorJitter, RandomResizedCrop
from torchvision.transforms import functional as F  # noqa: N812  (its usual name)

from trainserve.spec.classifier import AugmentSpec
from trainserve.train.folders import as_text
from trainserve.train.imagefolder import Sample
from trainserve.train.preprocess import PictureError, Preprocessing, decode, normalise, to_tensor

CACHE_BYTES = 256 * 2**20  # decoded pictures kept in memory by each process, when all of them fit
IGNORED = -100  # the label that torch's cross entropy does not count
RATIO = (3 / 4, 4 / 3)  # of RandomResizedCrop, as usual

Key = tuple[int, int]  # (epoch, index of the sample)
Item = tuple[torch.Tensor, int, str]  # (picture, label, ""), or (zeros, IGNORED, "path: reason")


def mix(*numbers: int) -> int:
    """A 63-bit number from others, the same everywhere: seeds that do not depend on each other."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def leftover_notice(pictures: int, batch_size: int) -> str | None:
    """What becomes of an incomplete last batch, said once."""
    left = pictures % batch_size
    if not left:
        return None
    return (
        f"{left} of {pictures} pictures make no whole batch of {batch_size} and are left out of each epoch, "
        "others each time"
    )


def order(pictures: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of an epoch: a permutation of all pictures, int64 [pictures]."""
    generator = torch.Generator().manual_seed(mix(seed, epoch))
    return torch.randperm(pictures, generator=generator)


class TrainOrder:
    """Batch sampler of one rank: step s takes order[s B : (s + 1) B], rank r the r-th of world_size equal slices."""

    def __init__(self, pictures: int, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        self.pictures, self.batch_size, self.seed, self.rank, self.world_size = (
            pictures, batch_size, seed, rank, world_size,
        )  # fmt: skip
        self.epoch = 0
        self.first_step = 0  # of the epoch: more than 0 after a resume in the middle

    def __iter__(self) -> Iterator[list[Key]]:
        indexes = order(self.pictures, self.seed, self.epoch).tolist()
        share = self.batch_size // self.world_size
        for step in range(self.first_step, self.pictures // self.batch_size):
            start = step * self.batch_size + self.rank * share
            yield [(self.epoch, index) for index in indexes[start : start + share]]


def val_shard(pictures: int, batch: int, rank: int, world_size: int) -> list[list[Key]]:
    """Batches of a rank's validation pictures: every picture is in exactly one rank's, none twice, none padded."""
    own = range(rank, pictures, world_size)
    return [[(0, index) for index in own[start : start + batch]] for start in range(0, len(own), batch)]


def val_rounds(pictures: int, batch: int, world_size: int) -> int:
    """Batches of the rank that has the most: rank 0."""
    return len(val_shard(pictures, batch, 0, world_size))


class Batch(NamedTuple):
    """Pictures of one step of one process."""

    images: torch.Tensor  # float32 [B, 3, S, S]
    labels: torch.Tensor  # int64 [B], IGNORED where the picture could not be read
    problems: list[str]  # "path: reason" of those

    def pin_memory(self) -> Batch:
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.problems)


class Pictures(Dataset[Item]):
    """Samples by key. Without `augment` a picture is always the same tensor, the one serving computes."""

    def __init__(
        self,
        root: Path,
        samples: Sequence[Sample],
        preprocessing: Preprocessing,
        *,
        seed: int = 0,
        augment: AugmentSpec | None = None,
        cache_bytes: int = 0,
    ) -> None:
        self.root, self.preprocessing, self.seed, self.augment = root, preprocessing, seed, augment
        self.paths = [sample.path for sample in samples]
        self.labels = [sample.label for sample in samples]
        self.room = cache_bytes
        self.cache: dict[int, Image.Image] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: Key) -> Item:
        """A picture, or why there is none: a loader process cannot raise in good words."""
        epoch, index = key
        try:
            image = self._decoded(index)
        except (PictureError, OSError) as error:
            size = self.preprocessing.image_size
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            return torch.zeros(3, size, size), IGNORED, f"{as_text(self.paths[index])}: {why}"
        if self.augment is None:
            return to_tensor(image, self.preprocessing), self.labels[index], ""
        changed = augmented(image, self.augment, self.preprocessing.image_size, mix(self.seed, epoch, index))
        return normalise(changed, self.preprocessing), self.labels[index], ""

    def _decoded(self, index: int) -> Image.Image:
        image = self.cache.get(index)
        if image is None:
            image = decode((self.root / self.paths[index]).read_bytes(), self.preprocessing)
            size = image.width * image.height * 4  # Pillow keeps RGB in four bytes
            if size <= self.room:
                self.room -= size
                self.cache[index] = image
        return image


def augmented(image: Image.Image, augment: AugmentSpec, size: int, seed: int) -> Image.Image:
    """A random crop, flip and change of colour, determined by `seed`: RGB, `size` x `size`."""
    with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
        torch.manual_seed(seed)
        top, left, height, width = RandomResizedCrop.get_params(image, list(augment.crop_scale), list(RATIO))
        box = (left, top, left + width, top + height)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
        flip = random.Random(seed).random() < augment.flip
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if augment.jitter:
            strength = (max(0.0, 1 - augment.jitter), 1 + augment.jitter)
            turns, brightness, contrast, saturation, _ = ColorJitter.get_params(strength, strength, strength, None)
            for turn in turns.tolist():
                if turn == 0:
                    image = F.adjust_brightness(image, brightness)
                elif turn == 1:
                    image = F.adjust_contrast(image, contrast)
                elif turn == 2:
                    image = F.adjust_saturation(image, saturation)
    return image


def collate(items: list[Item]) -> Batch:
    """A batch. An unreadable picture's place is filled with another's pixels, and its label is not counted."""
    good = next((tensor for tensor, label, _ in items if label != IGNORED), items[0][0])
    images = torch.stack([good if label == IGNORED else tensor for tensor, label, _ in items])
    return Batch(images, torch.tensor([label for _, label, _ in items]), [why for _, _, why in items if why])


def loader_workers(asked: int | None, cores: int, processes: int, cached: bool) -> int:
    """Loader processes of each of `processes` training processes on a machine with `cores`."""
    if asked is not None:
        return asked
    spare = cores // processes - 1  # the training process keeps one
    return 0 if cached else max(0, min(8, spare))


def fits_cache(pictures: int, side_px: int) -> bool:
    """Whether all decoded pictures, about square, stay in memory."""
    return pictures * side_px * side_px * 4 <= CACHE_BYTES


def loader(dataset: Pictures, batches: Any, workers: int, pin: bool) -> DataLoader[Any]:
    """Batches in order. Workers start fresh (not by fork: this process has threads and sockets) and stay."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        persistent_workers=workers > 0,
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=_quiet_worker if workers else None,
        generator=torch.Generator(),  # else each pass would draw from the random state that checkpoints keep
    )


def _quiet_worker(_: int) -> None:
    """Ctrl-C in a terminal reaches every process of the group: only the training process answers it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
