"""A checkpoint rebuilds everything, and is on disk wholly or not at all.

    checkpoints/step-00000042/state.pt     weights, optimizer, scaler, random state, position
    checkpoints/step-00000042/meta.json    sha256 of state.pt, network, classes, metrics, spec, which one is the best
    checkpoints/torn-step-00000040         found torn, kept for whoever wants to look at it

A folder is filled under a temporary name, fsynced, then renamed. What the newest whole one says holds for the run: no
other file names the best one, so none can disagree after a crash. An epoch's last step is saved before its validation
(`validated` is False), whose result is added to meta.json afterwards. Only rank 0 calls this module's reading and
writing functions; the other ranks get the state by broadcast.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trainserve.errors import EnvironmentProblem, SpecError
from trainserve.machine import refusal
from trainserve.machine.files import new_folder, remove_folder, remove_leftovers, sha256_of, write_json
from trainserve.train.preprocess import Preprocessing

FORMAT = 1
FOLDER = "checkpoints"
PREFIX = "step-"
TORN = "torn-"  # set aside: never read, counted or removed


@dataclass
class Checkpoint:
    """Everything of a run at one step. Tensors are on the CPU."""

    weights: dict[str, torch.Tensor]  # torchvision's state_dict keys
    arch: str
    stem: str
    image_size: int  # px
    classes: list[str]  # folder names, in the order of the logits
    preprocessing: Preprocessing
    classifier: dict[str, Any]  # the resolved Classifier, as JSON
    data_digest: str  # of the names of the training and validation pictures
    step: int  # optimizer steps done; with the seed this is the sampler's and the schedule's position too
    steps_per_epoch: int
    metrics: dict[str, float] = field(default_factory=dict)  # of the last validation: valLoss, top1, top5, trainLoss
    best: dict[str, Any] | None = None  # {"checkpoint": folder name, "top1": float} of the best validation so far
    validated: bool = True  # False: at the end of an epoch, whose validation is still to be done
    epoch_sums: list[float] = field(default_factory=list)  # the unfinished epoch's training sums over all ranks
    seconds: float = 0.0  # trained so far, over all generations
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    rng: torch.Tensor | None = None  # torch's CPU generator of rank 0

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.steps_per_epoch

    @property
    def name(self) -> str:
        return folder_name(self.step)


STATE_FIELDS = ("weights", "optimizer", "scaler", "rng")
META_FIELDS = (
    "arch", "stem", "image_size", "classes", "classifier", "data_digest", "step", "steps_per_epoch", "metrics", "best",
    "validated", "epoch_sums", "seconds",
)  # fmt: skip


def folder_name(step: int) -> str:
    return f"{PREFIX}{step:08d}"


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) of names, types, shapes and bits of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save(checkpoint: Checkpoint, output: Path, *, keep_last: int) -> Path:
    """Write the checkpoint; of the older ones keep the newest, `keep_last` in all, and the best.

    Raises EnvironmentProblem when the disk is full or refuses; older checkpoints are untouched then.
    """
    folder = output / FOLDER
    final = folder / checkpoint.name
    with _said(folder, checkpoint.step):
        with new_folder(final) as draft:  # there may be one of the same step, from before a resume from an older one
            _write(checkpoint, draft)
        _retain(folder, checkpoint.step, keep_last, checkpoint.best)
    return final


def record_validation(
    output: Path, step: int, *, metrics: dict[str, float], best: dict[str, Any], seconds: float, keep_last: int
) -> None:
    """Add what the validation after `step` found to its checkpoint, in one replacement of its meta.json.

    Raises EnvironmentProblem when the disk is full or refuses; a resume does the validation again then.
    """
    folder = output / FOLDER
    path = folder / folder_name(step) / "meta.json"
    changes = {"validated": True, "metrics": metrics, "best": best, "epoch_sums": [], "seconds": seconds}
    with _said(folder, step):
        write_json(path, {**json.loads(path.read_bytes()), **changes})
        _retain(folder, step, keep_last, best)


def _retain(folder: Path, newest: int, keep_last: int, best: dict[str, Any] | None) -> None:
    """Remove all but the best and the `keep_last` newest up to step `newest`, which always stays."""
    kept = {folder_name(newest), best["checkpoint"] if best else None}
    for old in [path for path in _steps(folder) if path.name <= folder_name(newest)][keep_last:]:
        if old.name not in kept:
            remove_folder(old)


@contextmanager
def _said(folder: Path, step: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(
            f"checkpoint of step {step} could not be written to {folder}: {error.strerror or error}",
            hint="; ".join(
                filter(None, [refusal.helps(error), "the run goes on from its last whole checkpoint with --resume"])
            ),
        ) from error


def _write(checkpoint: Checkpoint, folder: Path) -> None:
    state = folder / "state.pt"
    with state.open("wb") as file:  # not the path: on a full disk torch's error would not know the cause
        try:
            torch.save({name: getattr(checkpoint, name) for name in STATE_FIELDS}, file)
        except RuntimeError as error:
            # torch closes its archive after the write that failed, and reports only that this failed too.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
    meta = {name: getattr(checkpoint, name) for name in META_FIELDS}
    meta |= {
        "format": FORMAT,
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "sha256": sha256_of(state),
        "bytes": state.stat().st_size,
    }
    write_json(folder / "meta.json", meta)


def latest(output: Path, notice: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint, or None where there is none: from there the run goes on, so none above it is left.

    Torn ones are reported through `notice` and set aside under another name, so that they never take the place of a
    whole one; leftovers of an interrupted write are removed. Raises EnvironmentProblem when the disk refuses that.
    """
    folder = output / FOLDER
    torn = 0
    remove_leftovers(folder)
    for candidate in _steps(folder):
        try:
            checkpoint = load(candidate)
        except TornCheckpoint as error:
            torn += 1
            aside = _set_aside(candidate)
            notice(f"checkpoint {candidate.name} is torn ({error}) and is passed over; it is now {aside.name}")
            continue
        return checkpoint
    if torn:
        notice(f"none of the {torn} checkpoints in {folder} is whole: training starts again from step 0")
    return None


def _set_aside(folder: Path) -> Path:
    aside = folder.with_name(f"{TORN}{folder.name}")
    try:
        if aside.is_dir():
            shutil.rmtree(aside)  # the same step was torn before
        return folder.rename(aside)
    except OSError as error:
        raise EnvironmentProblem(f"{folder} cannot be renamed to {aside.name}: {error.strerror or error}") from error


class TornCheckpoint(Exception):
    """Not all of a checkpoint is there; the message says what is missing."""


def load(folder: Path) -> Checkpoint:
    """Read and verify one checkpoint. Raises TornCheckpoint."""
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        wanted, version = meta.pop("sha256"), meta.pop("format")
        size = meta.pop("bytes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TornCheckpoint(f"meta.json cannot be read: {str(error) or type(error).__name__}") from error
    if version != FORMAT:
        raise TornCheckpoint(f"format {version}, this version reads {FORMAT}")
    state = folder / "state.pt"
    try:
        found = state.stat().st_size
        if found != size:
            raise TornCheckpoint(f"state.pt has {found} bytes of {size}")
        if sha256_of(state) != wanted:
            raise TornCheckpoint("state.pt does not have the sha256 that meta.json says")
        tensors = torch.load(state, map_location="cpu", weights_only=True)
        meta["preprocessing"] = Preprocessing.from_dict(meta["preprocessing"])
        return Checkpoint(**meta, **tensors)
    except OSError as error:
        raise TornCheckpoint(f"state.pt cannot be read: {error.strerror or error}") from error
    except TornCheckpoint:
        raise
    except Exception as error:  # torch.load of foreign bytes raises many kinds; a field more or less a TypeError
        raise TornCheckpoint(f"state.pt is not this version's: {str(error).splitlines()[0]}") from error


def load_best(output: Path, notice: Callable[[str], None]) -> Checkpoint | None:
    """The checkpoint with the best validation top-1, by the newest whole one; that one itself if the best is gone."""
    newest = latest(output, notice)
    if newest is None or newest.best is None or newest.best["checkpoint"] == newest.name:
        return newest
    try:
        return load(output / FOLDER / str(newest.best["checkpoint"]))
    except TornCheckpoint as error:
        notice(f"the best checkpoint cannot be read ({error}); the newest whole one is taken")
        return newest


def check_matches(checkpoint: Checkpoint, wanted: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint of another network, class list, batch or data set.

    `wanted` holds some of: arch, stem, image_size, classes, batch_size, seed, data_digest. Raises SpecError.
    """
    train = checkpoint.classifier["spec"]["train"]
    found = {
        "arch": checkpoint.arch,
        "stem": checkpoint.stem,
        "image_size": checkpoint.image_size,
        "classes": checkpoint.classes,
        "batch_size": train["batchSize"],
        "seed": train["seed"],
        "data_digest": checkpoint.data_digest,
    }
    fields = {
        "arch": "spec.model.arch", "stem": "spec.model.stem", "image_size": "spec.model.imageSize",
        "classes": "spec.data.path: class list", "batch_size": "spec.train.batchSize", "seed": "spec.train.seed",
        "data_digest": "spec.data.path: set of pictures",
    }  # fmt: skip
    for name, value in wanted.items():
        if found[name] == value:
            continue
        if name == "classes":
            was, now = _difference(found[name], value)
        elif name == "data_digest":
            was, now = found[name][:12], value[:12]
        else:
            was, now = str(found[name]), str(value)
        raise SpecError(
            f"{fields[name]}: checkpoint {checkpoint.name} has {was}, this run has {now}",
            hint="start a new run under another name, or resume with what the checkpoint has",
        )


def _difference(was: list[str], now: list[str]) -> tuple[str, str]:
    only_was, only_now = sorted(set(was) - set(now)), sorted(set(now) - set(was))
    if not only_was and not only_now:
        return "the same classes in another order", "the other order"
    return f"{len(was)} classes (only there: {only_was[:10]})", f"{len(now)} classes (only here: {only_now[:10]})"


def _steps(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted((path for path in folder.glob(f"{PREFIX}*") if path.name[len(PREFIX) :].isdigit()), reverse=True)
