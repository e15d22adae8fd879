"""Ask a bundle's network about labelled pictures: with the bundle's own code, on a CPU or a GPU, in float32."""

from __future__ import annotations

import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from trainserve.errors import DataError, EnvironmentProblem
from trainserve.evaluate.evaluation import Evaluation
from trainserve.evaluate.labelled import Labelled
from trainserve.machine import cgroup
from trainserve.machine.temporary import own_folder
from trainserve.package.bundle import Bundle, read_bundle
from trainserve.package.description import MODEL_JSON
from trainserve.package.mar import read_mar
from trainserve.package.network import network_of, tensor_of
from trainserve.train.imagecheck import in_turn, pixels_of

Device = Literal["auto", "cpu", "cuda"]
BATCH = 64  # pictures; the answers do not depend on it beyond rounding


@dataclass(frozen=True)
class Network:
    """A bundle's network, ready to answer."""

    model: nn.Module  # in evaluation mode, float32, on `device`: images [B, 3, S, S] -> logits [B, C]
    tensor: Callable[[bytes], torch.Tensor]  # a picture's bytes -> [3, S, S] on the CPU; ValueError says why not
    device: torch.device


@contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """The bundle in a folder, or of a .mar, every digest verified. Raises UserError."""
    if path.is_dir():
        yield read_bundle(path)
        return
    archive = read_mar(path)
    with own_folder("trainserve-evaluate-") as folder:
        with zipfile.ZipFile(path) as source:  # names that leave the folder were refused
            for name in (MODEL_JSON, *archive.description.digests):
                source.extract(name, folder)
        yield read_bundle(folder)


def network(bundle: Bundle, device: Device = "auto") -> Network:
    """Build the network with the code in the bundle. Raises EnvironmentProblem where there is no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem("--device cuda: torch sees no GPU here", hint="leave it out, or use --device cpu")
    place = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    return Network(network_of(bundle).to(place), tensor_of(bundle), place)


def evaluate_bundle(
    source: str,
    bundle: Bundle,
    data: Labelled,
    *,
    batch_size: int = BATCH,
    device: Device = "auto",
    skip_bad: bool = False,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Ask about every picture once; `source` is what the user called the bundle.

    `threads` decode and compute (the cores of this process's cgroup unless given); `progress` hears (done, all).
    Raises DataError for a picture that cannot be read, unless `skip_bad`, and EnvironmentProblem for too little memory.
    """
    threads = threads or cgroup.cores()
    asked = network(bundle, device)
    probabilities = np.zeros((len(data.pictures), len(bundle.description.classes)), np.float32)
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    paths = [data.root / picture for picture in data.pictures]
    with _torch_threads(threads):
        done = 0
        for batch in _batches(paths, asked.tensor, batch_size, threads):
            numbers = range(done, done + len(batch))
            bad = [(data.pictures[n], item) for n, item in zip(numbers, batch, strict=True) if isinstance(item, str)]
            if bad and not skip_bad:
                raise DataError(
                    f"a picture in {data.root} cannot be read: {bad[0][0]}: {bad[0][1]}",
                    hint="leave such pictures out with --skip-bad",
                )
            skipped += bad
            good = [n for n, item in zip(numbers, batch, strict=True) if not isinstance(item, str)]
            if good:
                images = torch.stack([item for item in batch if not isinstance(item, str)])
                probabilities[good] = _answers(asked, images)
            kept += good
            done += len(batch)
            if progress is not None:
                progress(done, len(paths))
    return Evaluation(
        source=source,
        classes=tuple(bundle.description.classes),
        pictures=tuple(data.pictures[n] for n in kept),
        root=data.root,
        labels=np.array([data.labels[n] for n in kept], np.int64),
        probabilities=probabilities[kept],
        skipped=tuple(skipped),
    )


@torch.inference_mode()
def _answers(asked: Network, images: torch.Tensor) -> np.ndarray:
    """Images [B, 3, S, S] -> probabilities, float32 [B, C]."""
    try:
        logits = asked.model(images.to(asked.device))
        probabilities: np.ndarray = logits.softmax(dim=1).cpu().numpy()
    except torch.OutOfMemoryError:
        raise EnvironmentProblem(
            f"the GPU has not enough memory for {len(images)} pictures at once", hint="use a smaller --batch-size"
        ) from None
    return probabilities


def _batches(
    paths: Sequence[Path], tensor: Callable[[bytes], torch.Tensor], size: int, threads: int
) -> Iterator[list[torch.Tensor | str]]:
    """Tensors, or why there is none, in order; threads are at most about one batch ahead. Decoders release the GIL."""
    waiting: deque[Future[torch.Tensor | str]] = deque()
    ahead = size + 4 * threads
    pool = ThreadPoolExecutor(max_workers=threads)
    try:
        for start in range(0, len(paths), size):
            stop = min(start + size, len(paths))
            for number in range(start + len(waiting), min(stop + ahead, len(paths))):
                waiting.append(pool.submit(_tensor_of, paths[number], tensor))
            yield [waiting.popleft().result() for _ in range(start, stop)]
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing more is begun


def _tensor_of(path: Path, tensor: Callable[[bytes], torch.Tensor]) -> torch.Tensor | str:
    """One picture's tensor, or the reason why there is none. Large ones are decoded one at a time."""
    try:
        data = path.read_bytes()
        with in_turn(pixels_of(data)):
            return tensor(data)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # the bundle's PictureError is one
        return str(error)


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
