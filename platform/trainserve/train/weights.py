"""Start from weights that somebody trained before: read by rank 0, made to fit, given to all ranks.

What does not depend on the classes is taken. The last layer stays where the weights know the same classes, in any
order, and is new otherwise. A first layer of the other stem is adapted:

* 7x7 to 3x3: each number of the new kernel is the weighted sum of what it covers of the old one, so that the answer to
  an area of one colour stays what it was, and a smaller picture meets a smaller kernel;
* 3x3 to 7x7: the old kernel in the middle of zeros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainserve.errors import UserError
from trainserve.machine.files import sha256_of, write_json
from trainserve.train import imagenet, weightfiles
from trainserve.train.distributed import Group
from trainserve.train.recipe import Recipe
from trainserve.train.weightfiles import FIELD, IMAGENET, Source

RECORD = "weights.json"  # in the output folder
HEAD = ("fc.weight", "fc.bias")
STEM = "conv1.weight"
NESTED = ("state_dict", "model", "weights", "model_state_dict", "net", "network")  # where others keep a state_dict
GENTLE_LR = 0.03  # peak rates above it undo much of what the weights know


@dataclass(frozen=True)
class Start:
    """What was taken, for the log and for model.json."""

    source: str  # "imagenet resnet18 V1", or a path
    sha256: str  # of the file
    arch: str
    taken: int  # tensors
    tensors: int  # of the network
    head: str
    stem: str
    averaged: bool  # the file has no plain weights, so those averaged over the steps were taken
    ignored: tuple[str, ...]  # tensors of the file that the network does not have

    def sentence(self) -> str:
        """One line for the log."""
        parts = [f"weights: {self.source}, {self.taken} of {self.tensors} tensors taken, {self.head}"]
        parts += [self.stem] if self.stem else []
        parts += ["averaged (EMA) weights"] if self.averaged else []
        if self.ignored:
            parts.append(f"{len(self.ignored)} of the file not used: {', '.join(self.ignored[:3])}")
        return ", ".join(parts)


def begin(model: nn.Module, recipe: Recipe, group: Group, output: Path, notice: Callable[[str], None]) -> None:
    """At step 0 only: put the weights that the spec names into every rank's `model`, and keep a record of them.

    Raises UserError for a file that is none or does not fit, EnvironmentProblem where imagenet cannot be fetched.
    """
    word = recipe.classifier.spec.model.weights
    if word is None:
        for line in filter(None, [hint(recipe)]):
            notice(line)
        return
    turn = 0

    def going_on() -> None:
        nonlocal turn
        group.share(f"weights {turn}", False)
        turn += 1

    if group.is_first:
        start = load_into(model, recipe, notice, going_on)
        write_json(output / RECORD, asdict(start))
        notice(start.sentence())
        if recipe.train.lr > GENTLE_LR:
            notice(
                f"weights: training goes on from them with lr {recipe.train.lr:g}; --lr 0.01 often keeps more of them"
            )
        group.share(f"weights {turn}", True)
    else:
        while not group.share(f"weights {turn}", None):  # a long download is no silent peer
            turn += 1
    for tensor in model.state_dict().values():
        group.broadcast(tensor)


def hint(recipe: Recipe) -> str | None:
    """What to say to who trains a large network on few pictures from nothing."""
    count = len(recipe.listing.train)
    fewest = min(Counter(sample.label for sample in recipe.listing.train).values())
    if recipe.preprocessing.image_size < 96 or (count >= 1000 and fewest >= 100):
        return None
    return (
        f"{count} training pictures, {fewest} of the smallest class: with so few, starting from ImageNet weights "
        "usually helps: --weights imagenet"
    )


def load_into(model: nn.Module, recipe: Recipe, notice: Callable[[str], None], going_on: Callable[[], object]) -> Start:
    """Read the weights and copy what fits into `model`, in place."""
    spec = recipe.classifier.spec.model
    word = spec.weights
    assert word is not None
    if word == IMAGENET:
        published = imagenet.published(spec.arch)
        source = Source(imagenet.cached_or_fetched(published, notice, going_on), spec.arch)
        name = published.name
    else:
        source = weightfiles.locate(word)
        name = word
    digest = sha256_of(source.file)
    if source.sha256 not in (None, digest):
        raise UserError(f"{FIELD}: {source.file} was altered: its sha256 is not that in {weightfiles.BUNDLE_JSON}")
    tensors, averaged = read(source.file)
    fitted = fit_to(model.state_dict(), tensors, spec.arch, recipe.classes, source)
    model.load_state_dict(fitted.values, strict=False)
    return Start(
        name, digest, spec.arch, len(fitted.values), len(model.state_dict()), fitted.head, fitted.stem, averaged,
        fitted.ignored,
    )  # fmt: skip


def read(file: Path) -> tuple[dict[str, torch.Tensor], bool]:
    """Tensors by torchvision's names, and whether they are averaged ones. Raises UserError."""
    if weightfiles.is_safetensors(file):
        weightfiles.header(file)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found: Mapping[str, Any] = load_file(file)
        except SafetensorError as error:
            raise UserError(f"{FIELD}: {file} cannot be read: {error}") from None
    else:
        found = _saved_by_torch(file)
    chosen = weightfiles.chosen_names(found, str(file))
    anchor = chosen[weightfiles.ANCHOR]
    wrong = [name for name in chosen.values() if not isinstance(found[name], torch.Tensor)]
    if wrong:
        raise UserError(f"{FIELD}: {file}: {wrong[0]} is no tensor")
    return {name: found[full] for name, full in chosen.items()}, weightfiles.is_averaged(anchor)


def _saved_by_torch(file: Path) -> dict[str, Any]:
    """Flat names -> values of a file of torch.save: nested dicts are joined by dots. Nothing in it is executed."""
    weightfiles.check_saved_by_torch(file)
    try:
        value = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # foreign bytes raise many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "save the plain state_dict: torch.save(model.state_dict(), 'weights.pth')"
        if "weights_only" in str(error) or "Unsupported" in str(error) or "Weights only" in str(error):
            reason = "it holds more than tensors, and such files can run any code when they are loaded"
        raise UserError(f"{FIELD}: {file} cannot be read as a state_dict: {reason}", hint=hint) from None
    if not isinstance(value, dict):
        raise UserError(f"{FIELD}: {file} holds a {type(value).__name__}, not a state_dict")
    for key in NESTED:
        inner = value.get(key)
        if isinstance(inner, dict) and any(str(name).endswith(weightfiles.ANCHOR) for name in inner):
            return {str(name): tensor for name, tensor in inner.items()}
    return dict(_flat(value, ""))


def _flat(value: Mapping[Any, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        found += _flat(item, f"{name}.") if isinstance(item, dict) else [(name, item)]
    return found


@dataclass(frozen=True)
class Fitted:
    """What goes into the network, and how head and stem came about."""

    values: dict[str, torch.Tensor]
    head: str
    stem: str
    ignored: tuple[str, ...]


def fit_to(
    wanted: Mapping[str, torch.Tensor],
    found: Mapping[str, torch.Tensor],
    arch: str,
    classes: Sequence[str],
    source: Source,
) -> Fitted:
    """Choose and adapt: `wanted` is the state_dict of the network, `found` what was read, both by torchvision's names.

    Raises UserError in words where they are of different networks, or a number is none.
    """
    where = str(source.file)
    weightfiles.check_arch({name: tuple(tensor.shape) for name, tensor in found.items()}, arch, where)
    values: dict[str, torch.Tensor] = {}
    for name, target in wanted.items():
        if name in HEAD or name == STEM or (name.endswith("num_batches_tracked") and name not in found):
            continue
        if name not in found:
            raise UserError(f"{FIELD}: {where} is not whole: it has no {name}")
        if found[name].shape != target.shape:
            raise UserError(f"{FIELD}: {where}: {name} is {list(found[name].shape)}, not {list(target.shape)}")
        values[name] = found[name]
    values[STEM], stem = _stem(found.get(STEM), wanted[STEM].shape[-1], where)
    rows, head = _head(found, classes, source)
    if rows is not None:
        values |= {name: found[name][rows] for name in HEAD}
    for name, tensor in values.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{FIELD}: {where}: {name} holds numbers that are none (NaN or infinite)")
    ignored = tuple(name for name in found if name not in wanted)
    return Fitted(values, head, stem, ignored)


def _head(found: Mapping[str, torch.Tensor], classes: Sequence[str], source: Source) -> tuple[list[int] | None, str]:
    """Rows of the old last layer, in the order of the new classes; None: it starts anew."""
    new = f"head fc new for {len(classes)} classes"
    if source.classes is None or any(name not in found for name in HEAD):
        return None, new
    known = list(source.classes)
    if len(found[HEAD[0]]) != len(known) or sorted(known) != sorted(classes):
        shared = len(set(known) & set(classes))
        return None, f"{new} (the weights know {len(known)}, {shared} of them among these)"
    if known == list(classes):
        return list(range(len(known))), "head fc kept"
    return [known.index(name) for name in classes], "head fc kept, its rows in this run's order of classes"


def _stem(kernel: torch.Tensor | None, side: int, where: str) -> tuple[torch.Tensor, str]:
    """The first convolution with kernels of `side` px, and in words what was done to it."""
    if kernel is None or kernel.ndim != 4 or kernel.shape[:2] != (64, 3) or kernel.shape[-1] not in (3, 7):
        shape = None if kernel is None else list(kernel.shape)
        raise UserError(f"{FIELD}: {where}: {STEM} is {shape}, not [64, 3, 7, 7] or [64, 3, 3, 3]")
    old = kernel.shape[-1]
    if old == side:
        return kernel, ""
    said = f"conv1 adapted {old}x{old} -> {side}x{side}"
    if side > old:
        margin = (side - old) // 2
        return nn.functional.pad(kernel, (margin,) * 4), said
    share = _shares(old, side)
    return torch.einsum("ai,ocij,bj->ocab", share, kernel.float(), share), said


def _shares(old: int, new: int) -> torch.Tensor:
    """[new, old]: how much of each old pixel lies in each new one, when both cover the same length."""
    edges = torch.arange(new + 1) * (old / new)
    pixels = torch.arange(old)
    low = torch.maximum(edges[:-1, None], pixels[None])
    high = torch.minimum(edges[1:, None], pixels[None] + 1)
    return (high - low).clamp(min=0)
