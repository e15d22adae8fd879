"""The two engines side by side: the same archive, picture and clients, taking turns: `make bench-serving`.

ResNet-18 at 224 px with random weights, a JPEG of 500 x 375; packaged by default (no batches, one worker or thread
a core). The clients run on the same cores as the servers. Prints a table, ready for docs/benchmarks.md.
"""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import torch
from PIL import Image

from trainserve.machine import cgroup
from trainserve.package.bundle import write_bundle
from trainserve.package.mar import build_mar
from trainserve.serve.servers import find_server
from trainserve.train.architecture import build
from trainserve.train.checkpoint import Checkpoint
from trainserve.train.preprocess import Preprocessing

CLIENTS = (1, 16)
ROUNDS, ROUND_S, WARM_UP_S = 3, 5.0, 2.0
CLASSES = [f"class {index}" for index in range(10)]


def photo(seed: int) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (12, 16, 3), generator=generator, dtype=torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse.numpy()).resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def archive(folder: Path) -> Path:
    torch.manual_seed(0)
    model = build("resnet18", len(CLASSES), "imagenet").eval()
    checkpoint = Checkpoint(
        weights=model.state_dict(),
        arch="resnet18",
        stem="imagenet",
        image_size=224,
        classes=CLASSES,
        preprocessing=Preprocessing.for_size(224, 178_956_970),
        classifier={"metadata": {"name": "bench"}, "spec": {"data": {"path": "./bench"}}},
        data_digest="0" * 64,
        step=1,
        steps_per_epoch=1,
        metrics={"top1": 0.1, "top5": 0.5, "valLoss": 2.3},
    )
    sample = folder / "sample.jpg"
    sample.write_bytes(photo(0))
    bundle = write_bundle(checkpoint, [sample], folder / "bundle", {})
    build_mar(bundle, folder / "bench.mar", name="bench")
    return folder / "bench.mar"


@contextmanager
def served(mar: Path, engine: str) -> Iterator[str]:
    """URL of the model in a server of its own process, ready."""
    words = [sys.executable, "-m", "trainserve", "serve", str(mar), "--engine", engine, "--name", engine, "-o", "name"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            name = process.stdout.readline().strip()
            yield f"{find_server(name).rest_url}/predictions/bench"
        finally:
            process.terminate()


def load(url: str, clients: int, seconds: float) -> list[float]:
    """Latencies in seconds of all requests that so many clients made one after the other in that time."""
    picture, ends = photo(1), time.monotonic() + seconds
    times: list[float] = []

    def ask() -> None:
        with httpx.Client(timeout=60, trust_env=False) as http:
            while time.monotonic() < ends:
                begun = time.perf_counter()
                http.post(url, content=picture, headers={"Content-Type": "image/jpeg"}).raise_for_status()
                times.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("TRAINSERVE_HOME", str(folder / "home"))
        torch.set_num_threads(1)
        mar = archive(folder)
        urls = {name: stack.enter_context(served(mar, name)) for name in ("torchserve", "native")}
        print(f"{cgroup.cores()} cores, torch {torch.__version__}, Python {sys.version.split()[0]}\n")
        print("| clients | engine | requests/s | p50, ms | p99, ms |\n|---|---|---|---|---|")
        for clients in CLIENTS:
            for url in urls.values():
                load(url, clients, WARM_UP_S)
            rates: dict[str, list[float]] = {name: [] for name in urls}
            times: dict[str, list[float]] = {name: [] for name in urls}
            for _ in range(ROUNDS):
                for name, url in urls.items():
                    found = load(url, clients, ROUND_S)
                    rates[name].append(len(found) / ROUND_S)
                    times[name] += found
            for name in urls:
                p50, p99 = (1000 * statistics.quantiles(times[name], n=100)[at - 1] for at in (50, 99))
                print(f"| {clients} | {name} | {statistics.median(rates[name]):.1f} | {p50:.1f} | {p99:.1f} |")
            ratio = statistics.median(rates["native"]) / statistics.median(rates["torchserve"])
            print(f"| {clients} | native / torchserve | {ratio:.2f} | | |", flush=True)


if __name__ == "__main__":
    main()
