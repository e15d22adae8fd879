"""Decode mutants the way training and serving do, and say what each became: started by `pictures.py`.

Arguments: the archive's folder, a scratch folder, first seed, end, MiB of address space beyond what is needed to
start. stdout: `begin SEED`, then `end SEED {json}`, a line each, so that a dead or silent child names its picture.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from support.mutants import mutant, originals
from support.torchserve_context import Context, load_module
from trainserve.train.data import Pictures
from trainserve.train.imagecheck import fault
from trainserve.train.imagefolder import Sample
from trainserve.train.preprocess import Preprocessing

MAX_PIXELS = 1_000_000


def main() -> None:
    archive, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    first, end, room_mib = (int(word) for word in sys.argv[3:6])
    handler = load_handler(archive)
    numbers: Preprocessing = handler.preprocessing
    training = Preprocessing.from_dict(numbers.to_dict())
    picture = scratch / f"mutant-{first}.jpg"
    data_set = Pictures(scratch, [Sample(picture.name, 3, 0, 0)], training)
    unharmed = originals()
    for _, data in unharmed:  # every decoder is loaded before memory is limited and measured
        handler.preprocess.preprocess(data, replace(numbers, max_pixels=50_000_000))
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + room_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    Path("/proc/self/clear_refs").write_text("5")  # the peak of starting is forgotten
    base = peak_kib()
    for seed in range(first, end):
        print("begin", seed, flush=True)
        what, data = mutant(seed, unharmed)
        picture.write_bytes(data)
        begun = time.process_time()
        trained = by_training(data_set)
        served = by_serving(handler, data)
        checked = fault(picture, "full", MAX_PIXELS)
        found = {
            "what": what,
            "bytes": len(data),
            "same": same(trained, served),
            "checked": checked == (trained if isinstance(trained, str) else None),
            "error": trained if isinstance(trained, str) else None,
            "served": served if isinstance(served, str) else None,
            "cpuSeconds": round(time.process_time() - begun, 3),
            "peakMib": (peak_kib() - base) / 1024,
        }
        print("end", seed, json.dumps(found), flush=True)


def peak_kib() -> int:
    """The most memory that was resident, of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise OSError("no VmHWM in /proc/self/status")


def load_handler(archive: Path):
    """The TorchServe handler of an unpacked .mar, as a worker loads it."""
    handler = load_module(archive / "resnet_classifier.py").ResnetClassifier()
    handler.initialize(Context(archive, maxPixels=MAX_PIXELS))
    return handler


def by_training(data_set: Pictures) -> torch.Tensor | str:
    tensor, _, problem = data_set[0, 0]
    return problem.partition(": ")[2] if problem else tensor


def by_serving(handler, data: bytes) -> torch.Tensor | str:
    try:
        return handler.preprocess.preprocess(data, handler.preprocessing)
    except handler.preprocess.PictureError as error:
        return str(error)


def same(trained: torch.Tensor | str, served: torch.Tensor | str) -> bool:
    if isinstance(trained, str) or isinstance(served, str):
        return type(trained) is type(served) and trained == served
    return torch.equal(trained, served) and bool(torch.isfinite(trained).all())


if __name__ == "__main__":
    main()
