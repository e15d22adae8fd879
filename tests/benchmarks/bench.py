"""Speed as ratios, each measured side by side with its baseline in one run: `make bench`.

Machines are noisy and differ, so an absolute time proves nothing; what is compared alternates with its baseline, and
medians are divided. Prints a table, ready for docs/benchmarks.md.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.nn import functional as F

from trainserve.observe import events
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


def fifty_runs(home: Path) -> Row:
    """`list` of 50 finished runs, each with a job's objects and two thousand events; checked against `status`."""
    command = str(Path(sys.executable).parent / "platform")
    for number in range(50):
        _finished_run(home / "runs" / f"run-{number}", number)
    env = {**os.environ, "TRAINSERVE_HOME": str(home)}

    def said(*words: str) -> Any:
        return json.loads(
            subprocess.run([command, *words, "-o", "json"], check=True, capture_output=True, env=env).stdout
        )

    listed = {run["name"]: run for run in said("list")["runs"]}
    assert len(listed) == 50
    for name in ("run-0", "run-49"):
        assert said("status", name).items() >= listed[name].items(), f"list and status differ on {name}"
    rows = side_by_side(process(command, "list", home=home), process(sys.executable, "-c", "pass", home=home))
    row = Row("`platform list`, 50 finished runs", "`python -c pass`", *rows, "")
    row.goal = f"0.5 s more: {row.ours_s - row.baseline_s:.2f} s"
    return row


def _finished_run(folder: Path, number: int) -> None:
    """What a run of two nodes leaves."""
    (folder / "output").mkdir(parents=True)
    (folder / "pods").mkdir()
    (folder / "lock").touch()
    true = {"status": "True", "lastTransitionTime": "2026-01-01T00:10:00Z"}
    job = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": folder.name, "creationTimestamp": f"2026-01-01T00:00:{number:02}Z"},
        "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1}, "Worker": {"replicas": 1}}},
        "status": {"conditions": [{"type": "Created", **true}, {"type": "Succeeded", **true, "message": "done"}]},
    }
    pods = [
        {"kind": "Pod", "metadata": {"name": f"{folder.name}-{role}-0", "annotations": {"filler": "x" * 8000}}}
        for role in ("master", "worker")
    ]
    (folder / "objects.json").write_text(json.dumps({"objects": [job, *pods]}))
    lines: list[dict[str, Any]] = [{"time": 0.0, "kind": "start", "epochs": 20, "stepsPerEpoch": 100}]
    for step in range(1, 2001):
        lines.append({"time": step / 2, "kind": "step", "epoch": step // 100 + 1, "step": step, "loss": 0.5, "lr": 0.1,
                      "imagesPerSecond": 100.0, "etaSeconds": 1.0})  # fmt: skip
        if step % 100 == 0:
            lines.append({"time": step / 2, "kind": "checkpoint", "step": step})
            lines.append({"time": step / 2, "kind": "epoch", "epoch": step // 100, "step": step, "top1": 0.9})
    lines.append({"time": 1000.0, "kind": "done", "step": 2000, "seconds": 1000.0, "top1": 0.9})
    (folder / "output" / "events.jsonl").write_text("".join(events.encode(cast(events.Event, line)) for line in lines))


BARE_RANK = """\
import sys, torch, torchvision, torch.distributed as dist
dist.init_process_group("gloo", init_method="tcp://127.0.0.1:" + sys.argv[1], rank=int(sys.argv[2]), world_size=4)
print("met", flush=True)
sys.stdin.read()
"""


def first_step(home: Path, rounds: int = 2) -> Row:
    """From the command to the first training step on four nodes, against four bare processes that import and meet."""
    data = home / "pictures"
    for name in ("a", "b"):
        (data / name).mkdir(parents=True)
        _pictures(data / name, 40, 32)
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        taken = _our_first_step(home, data, f"bench-{turn}"), _bare_meeting(home)
        if turn:  # the first is a warm-up
            for which in (0, 1):
                times[which].append(taken[which])
    return Row(
        "`platform train`, 4 nodes: command to first step",
        "4 x `import torch, torchvision`, gloo rendezvous",
        statistics.median(times[0]),
        statistics.median(times[1]),
        "-",
    )


def _our_first_step(home: Path, data: Path, name: str) -> float:
    command = str(Path(sys.executable).parent / "platform")
    env = {**os.environ, "TRAINSERVE_HOME": str(home)}
    words = ["train", "--data", str(data), "--name", name, "--nodes", "4", "--batch-size", "16", "--epochs", "100",
             "--image-size", "32", "--workers", "0", "--warmup-epochs", "0", "--detach"]  # fmt: skip
    path = home / "runs" / name / "output" / "events.jsonl"
    begun = time.perf_counter()
    with subprocess.Popen([command, *words], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as train:
        while not any(event["kind"] == "step" for event in events.read(path)[0]):
            assert train.poll() in (None, 0), f"{name} did not start"
            assert time.perf_counter() - begun < 120, f"{name} makes no step"
            time.sleep(0.005)
        taken = time.perf_counter() - begun
    removed = [command, "rm", "--force", name]
    subprocess.run(removed, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return taken


def _bare_meeting(home: Path) -> float:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun = time.perf_counter()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", BARE_RANK, port, str(rank)],
            env=env, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        for rank in range(4)
    ]  # fmt: skip
    for rank in ranks:
        assert rank.stdout is not None
        assert rank.stdout.readline() == b"met\n"
    taken = time.perf_counter() - begun
    for rank in ranks:
        rank.kill()  # their ends take seconds, which nobody waits for here
        rank.communicate()
    return taken


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
        if gpu:
            rows = [step(device)]
        else:
            places = [Path(home, name) for name in ("empty", "fifty", "four")]
            rows = [command_line(places[0]), fifty_runs(places[1]), first_step(places[2]), step(device)]
    card = f", {torch.cuda.get_device_name()}" if gpu else ""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    print(f"{platform.machine()}, {os.cpu_count()} cores{card}, {versions}\n")
    print("| what | baseline | ratio | goal | ours, s | baseline, s |\n|---|---|---|---|---|---|")
    for row in rows:
        print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
