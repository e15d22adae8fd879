"""What this rank's pod has of what was asked for: GPUs, shared memory, and on rank 0 room in the output. In words."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

import torch

from trainserve.kube import names
from trainserve.machine.usage import size_words
from trainserve.package.description import MODEL_JSON
from trainserve.spec.classifier import Classifier
from trainserve.train import architecture, count
from trainserve.train import checkpoint as checkpoints
from trainserve.train.recipe import Recipe

PREFETCH = 2  # batches that a loader process of torch's DataLoader keeps ready


def gpus(asked: int, visible: int) -> str | None:
    """Why a pod that asked for GPUs cannot use as many; None where it can."""
    if visible >= asked:
        return None
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"asked for {asked} GPUs (spec.pod.gpus), but this image's torch {torch.__version__} is built for the CPU"
        )
    return (
        f"asked for {asked} GPUs (spec.pod.gpus), and torch sees {visible}: the node's driver, its device plugin, or "
        "spec.pod.runtimeClass"
    )


def shared_memory_needed(recipe: Recipe, workers: int, ranks_here: int) -> int:
    """Bytes of /dev/shm in which the loader processes of all ranks of a pod hand over their batches of float32."""
    side = recipe.preprocessing.image_size
    batch = recipe.share * 3 * side * side * count.BYTES_A_NUMBER
    return ranks_here * workers * (PREFETCH + 1) * batch  # and the one that is being made


def shared_memory(needed: int, path: Path = Path(names.MOUNT_SHM)) -> str | None:
    """Why batches would not fit into /dev/shm (a loader process then dies by SIGBUS); None where they do."""
    if not needed or not path.is_dir():
        return None
    free = shutil.disk_usage(path).free
    if free >= needed:
        return None
    return (
        f"shared memory too small: {path} has {size_words(free)} free, and the loader processes need "
        f"{size_words(needed)}; raise spec.pod.sharedMemory, or lower spec.train.workers or batchSize"
    )


def writable(output: Path) -> str | None:
    """Why nothing can be written into the output; None where a file can be made, renamed and removed."""
    probe = output / f".preflight-{os.getpid()}"
    moved = probe.with_suffix(".moved")
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"1")
        probe.rename(moved)
        moved.unlink()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"no permission to write to the output {output}: {permissions(output)}"
        return f"the output {output} cannot be written: {error.strerror or error}"
    return None


def permissions(path: Path) -> str:
    """Whose the nearest existing folder is, its mode, and who we are: what an administrator needs to mend it."""
    there = next((each for each in (path, *path.parents) if _seen(each)), Path("/"))
    found = there.stat()
    return (
        f"{there} belongs to {found.st_uid}:{found.st_gid} with mode {stat.S_IMODE(found.st_mode):04o}, and this "
        f"process is {os.geteuid()}:{os.getegid()} (groups {', '.join(map(str, sorted(os.getgroups()))) or 'none'})"
    )


def _seen(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def finished_by_another(output: Path, env: Mapping[str, str]) -> str | None:
    """Why a job that has just begun may not write here: another one of its name has finished here; None where it may.

    What an unfinished one has left is gone on from, as who deletes an object and applies it again expects.
    """
    if names.ENV_VERSION not in env or env.get(names.ENV_GENERATION) != "1":
        return None
    try:
        lineage = json.loads((output / "bundle" / MODEL_JSON).read_bytes())["lineage"]
        uid, job = lineage["jobUid"], lineage["job"]
    except (OSError, ValueError, LookupError, TypeError):  # there is none, or one that does not say whose it is
        return None
    if uid == env.get(names.ENV_JOB_UID):
        return None
    return (
        f"the output {output} holds the finished run of an earlier job {job} (uid {uid}); train under another --name, "
        "or remove what is there"
    )


def output_needed(classifier: Classifier, recipe: Recipe) -> int:
    """Bytes that a run leaves at most: its checkpoints, the best one, one that is being written, bundle and archive."""
    with torch.device("meta"):  # no memory, no numbers
        model = architecture.build(classifier.spec.model.arch, len(recipe.classes), recipe.stem)
    weights, checkpoint = count.stored_bytes(model)
    return (recipe.train.keep_last + 2) * checkpoint + 2 * weights


def room(output: Path, needed: int) -> str | None:
    """Why the run's files would not fit into the output; None where they do. What a run has left there is counted."""
    free = shutil.disk_usage(output).free
    kept = sum(each.stat().st_size for each in (output / checkpoints.FOLDER).glob("*/*") if each.is_file())
    if free + kept >= needed:
        return None
    return (
        f"too little room in the output {output}: {size_words(free)} free, and the run's checkpoints, bundle and "
        f"archive need {size_words(needed - kept)} more; use a larger volume, or lower spec.train.keepLast"
    )
