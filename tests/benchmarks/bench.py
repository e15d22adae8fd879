"""Speed as ratios, each measured side by side with its baseline in one run: `make bench`.

Machines are noisy and differ, so an absolute time proves nothing; what is compared alternates with its baseline, and
medians are divided. Prints a table, ready for docs/benchmarks.md.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from trainserve.spec.classifier import AugmentSpec, TrainSpec
from trainserve.train.architecture import build
from trainserve.train.data import Pictures, TrainOrder, loader
from trainserve.train.imagefolder import Sample
from trainserve.train.optim import lr_at, sgd
from trainserve.train.preprocess import Preprocessing

ROUNDS = 7


@dataclass
class Row:
    """One line of the table: ours over the baseline, below 1 is faster."""

    what: str
    baseline: str
    ours_s: float
    baseline_s: float
    goal: str

    def __str__(self) -> str:
        ratio = self.ours_s / self.baseline_s
        return (
            f"| {self.what} | {self.baseline} | {ratio:.2f} | {self.goal} | {self.ours_s:.3f} | {self.baseline_s:.3f} |"
        )


def side_by_side(ours: Callable[[], None], baseline: Callable[[], None], rounds: int = ROUNDS) -> tuple[float, float]:
    """Median seconds of both, taking turns; the first turn of each is a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for which, function in enumerate((ours, baseline)):
            begun = time.perf_counter()
            function()
            if turn:
                times[which].append(time.perf_counter() - begun)
    return statistics.median(times[0]), statistics.median(times[1])


def process(*words: str, home: Path) -> Callable[[], None]:
    """A whole process, output thrown away."""
    env = {**os.environ, "TRAINSERVE_HOME": str(home)}
    return lambda: (
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env) and None
    )


def command_line(home: Path) -> Row:
    command = str(Path(sys.executable).parent / "platform")
    ours = process(command, "--help", home=home)
    bare = process(sys.executable, "-c", "import click", home=home)
    return Row("`platform --help`", "`python -c 'import click'`", *side_by_side(ours, bare), "<= 3")


def step(device: torch.device, steps: int = 4, batch: int = 32, size: int = 32) -> Row:
    """Our training steps (loader, schedule, loss, optimizer) against forward, backward and optimizer step alone."""
    train = TrainSpec(batchSize=batch)
    folder = Path(tempfile.mkdtemp())
    samples = tuple(_pictures(folder, steps * batch, size))
    preprocessing = Preprocessing.for_size(size, 10**8)
    pictures = Pictures(folder, samples, preprocessing, seed=0, augment=AugmentSpec(), cache_bytes=1 << 30)
    order = TrainOrder(len(samples), batch, 0, 0, 1)
    batches = loader(pictures, order, 0, device.type == "cuda")
    models = [build("resnet18", 10, "small").to(device, memory_format=torch.channels_last) for _ in range(2)]
    optimizers = [sgd(model, train) for model in models]
    images = torch.randn(batch, 3, size, size).to(device, memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,)).to(device)

    def ours() -> None:
        for number, given in enumerate(batches):
            for group in optimizers[0].param_groups:
                group["lr"] = lr_at(number, train, steps)
            x = given.images.to(device, non_blocking=True, memory_format=torch.channels_last)
            y = given.labels.to(device, non_blocking=True)
            losses = F.cross_entropy(models[0](x).float(), y, reduction="none")
            optimizers[0].zero_grad(set_to_none=True)
            losses.mean().backward()
            optimizers[0].step()
        _finish(device)

    def bare() -> None:
        for _ in range(steps):
            optimizers[1].zero_grad(set_to_none=True)
            F.cross_entropy(models[1](images), labels).backward()
            optimizers[1].step()
        _finish(device)

    what = f"training step with pictures read, ResNet-18, {size} px, batch {batch}, {device.type}"
    return Row(what, "forward, backward, optimizer step on one fixed batch", *side_by_side(ours, bare, 5), "<= 1.05")


def _pictures(folder: Path, count: int, size: int) -> list[Sample]:
    from PIL import Image

    found = []
    for number in range(count):
        path = folder / f"{number}.jpg"
        Image.effect_noise((size + 16, size + 8), 60).convert("RGB").save(path, quality=85)
        found.append(Sample(path.name, number % 10, path.stat().st_size, 0))
    return found


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> int:
    """Print the table."""
    gpu = "--gpu" in sys.argv[1:]
    if gpu and not torch.cuda.is_available():
        print("bench-gpu: SKIPPED: no GPU is visible to torch on this machine; nothing was measured")
        return 0
    device = torch.device("cuda" if gpu else "cpu")
    with tempfile.TemporaryDirectory() as home:
        rows = [step(device)] if gpu else [command_line(Path(home)), step(device)]
    card = f", {torch.cuda.get_device_name()}" if gpu else ""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    print(f"{platform.machine()}, {os.cpu_count()} cores{card}, {versions}\n")
    print("| what | baseline | ratio | goal | ours, s | baseline, s |\n|---|---|---|---|---|---|")
    for row in rows:
        print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
