"""What a run can start from, as files: looked at without torch, so that a wrong one is told before there is a run.

`spec.model.weights` is `imagenet`, a file (.safetensors, or a state_dict that torch saved) or the folder of a bundle.
On the command line it may be a run's name too, which becomes the folder of that run's bundle.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainserve.errors import UserError

IMAGENET = "imagenet"
FIELD = "spec.model.weights"
BUNDLE_JSON = "model.json"
BUNDLE_WEIGHTS = "weights.safetensors"
LARGEST_HEADER = 100 << 20  # bytes; a ResNet's has some 30 KB

ANCHOR = "layer1.0.conv1.weight"  # every ResNet of torchvision and timm has it, whatever stands before the name
AVERAGED = ("ema", "averaged", "swa")  # words in the names of weights averaged over the steps
BASIC, BOTTLENECK = "basic", "bottleneck"
ARCH_OF: dict[tuple[str, tuple[int, ...]], str] = {
    (BASIC, (2, 2, 2, 2)): "resnet18",
    (BASIC, (3, 4, 6, 3)): "resnet34",
    (BOTTLENECK, (3, 4, 6, 3)): "resnet50",
    (BOTTLENECK, (3, 4, 23, 3)): "resnet101",
    (BOTTLENECK, (3, 8, 36, 3)): "resnet152",
}


@dataclass(frozen=True)
class Source:
    """A file of tensors, and what is known of the network they belong to. None: the file does not say."""

    file: Path
    arch: str | None = None
    classes: tuple[str, ...] | None = None  # in the order of the logits
    sha256: str | None = None  # what the file must have


def looks_like_a_path(word: str) -> bool:
    """Whether a word means a file even where none is there: it has a folder or the ending of one."""
    return "://" not in word and (
        "/" in word or word.startswith("~") or word.endswith((".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".mar"))
    )


def locate(word: str) -> Source:
    """The file that `word`, a path, means. Raises UserError where there is none, or a bundle is damaged."""
    path = Path(word)
    if path.is_file() and path.name == BUNDLE_WEIGHTS and (path.parent / BUNDLE_JSON).is_file():
        path = path.parent  # beside it stands which classes it knows
    if path.is_dir():
        return _of_bundle(path)
    if not path.exists():
        raise UserError(
            f"{FIELD}: {word} does not exist", hint="give imagenet, a .safetensors or .pth file, or a finished run"
        )
    if not path.is_file():  # reading it may never end
        raise UserError(f"{FIELD}: {word} is a pipe or device, not a file of weights")
    if path.suffix == ".mar":
        raise UserError(
            f"{FIELD}: {word} is an archive for TorchServe", hint="give the run or its folder output/bundle"
        )
    return Source(path)


def check(word: str, arch: str) -> None:
    """Whether weights fit `arch`, as far as can be seen without torch. Raises UserError in words.

    Of a file that torch saved only its kind is looked at; rank 0 reads it and says the rest then.
    """
    if word == IMAGENET:
        return
    source = locate(word)
    if source.arch is not None:
        refuse_other_arch(source.arch, arch, str(source.file.parent))
    elif is_safetensors(source.file):
        shapes = header(source.file)
        chosen = chosen_names(shapes, str(source.file))
        check_arch({name: shapes[full] for name, full in chosen.items()}, arch, str(source.file))
    else:
        check_saved_by_torch(source.file)


def is_safetensors(file: Path) -> bool:
    """By its name: the format has no mark of its own at its beginning."""
    return file.suffix == ".safetensors"


def check_saved_by_torch(file: Path) -> None:
    """Raises UserError for a file that torch.save did not write, by what can be seen without reading its tensors."""
    with file.open("rb") as stream:
        start = stream.read(4)
    if start[:1] == b"\x80":  # the format before torch 1.6: a pickle
        return
    hint = "give a .safetensors file, or what torch.save(model.state_dict(), 'weights.pth') wrote"
    if start != b"PK\x03\x04":
        kind = "is empty" if not start else "is neither a safetensors file by its name nor one that torch.save wrote"
        raise UserError(f"{FIELD}: {file} {kind}", hint=hint)
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        raise UserError(f"{FIELD}: {file} was cut short, or is damaged", hint=hint) from None
    if any("/code/" in name for name in names):
        raise UserError(f"{FIELD}: {file} is a TorchScript program, not a state_dict", hint=hint)
    if not any(name.endswith("/data.pkl") for name in names):
        raise UserError(f"{FIELD}: {file} is a zip file, but not one that torch.save wrote", hint=hint)


def header(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name, as a safetensors file states them. Raises UserError for another kind of file or a cut one."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 10 or length > min(size - 8, LARGEST_HEADER):
            raise UserError(f"{FIELD}: {file} is no safetensors file, or was cut short")
        try:
            entries: Any = json.loads(stream.read(length))
            tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
            shapes = {name: tuple(int(side) for side in entry["shape"]) for name, entry in tensors.items()}
            end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise UserError(f"{FIELD}: {file} is no safetensors file: its head cannot be read") from None
    if 8 + length + end != size:
        raise UserError(f"{FIELD}: {file} was cut short: {size:,} bytes of {8 + length + end:,}")
    return shapes


def chosen_names(names: Iterable[str], where: str) -> dict[str, str]:
    """Names of torchvision -> the names in the file, which may have a prefix such as `module.` or `model.`.

    Where weights are there twice, plain and averaged over the steps (EMA), the plain ones are taken. Raises UserError
    where there are none, or several and nothing to choose by.
    """
    names = list(names)
    prefixes = [name.removesuffix(ANCHOR) for name in names if name.endswith(ANCHOR)]
    prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith((".", "_", "/"))]
    if not prefixes:
        shown = ", ".join(names[:3]) or "nothing"
        raise UserError(
            f"{FIELD}: {where} holds no ResNet with torchvision's names: it has no {ANCHOR}, but {shown}, ...",
            hint="give a state_dict of torchvision's or timm's resnet18, 34, 50, 101 or 152",
        )
    plain = sorted(prefix for prefix in prefixes if not is_averaged(prefix)) or prefixes
    if len(plain) > 1:
        raise UserError(
            f"{FIELD}: {where} holds {len(plain)} networks: {', '.join(repr(prefix) for prefix in plain)}",
            hint="save the one to start from in a file of its own",
        )
    prefix = plain[0]
    # Without a prefix, what belongs to an averaged copy beside it has one: it is no name of torchvision's.
    return {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}


def is_averaged(name: str) -> bool:
    """Whether a name says that its weights are averaged over the steps."""
    words = name.lower().replace("_", ".").split(".")
    return any(word in AVERAGED for word in words)


def check_arch(shapes: Mapping[str, Sequence[int]], arch: str, where: str) -> None:
    """Whether these tensors, by torchvision's names, are of a network `arch`. Raises UserError with the likely one."""
    blocks = tuple(
        len({name.split(".")[1] for name in shapes if name.startswith(f"layer{stage}.")}) for stage in range(1, 5)
    )
    kind = BOTTLENECK if "layer1.0.conv3.weight" in shapes else BASIC
    middle = "layer1.0.conv2.weight" if kind == BOTTLENECK else ANCHOR
    if tuple(shapes.get(middle, ())) != (64, 64, 3, 3):
        raise UserError(
            f"{FIELD}: {where} holds a wide or grouped ResNet: {middle} is {list(shapes.get(middle, ()))}, "
            "not [64, 64, 3, 3]",
            hint="known are resnet18, 34, 50, 101 and 152",
        )
    likely = ARCH_OF.get((kind, blocks))
    if likely is None:
        raise UserError(
            f"{FIELD}: {where} holds a ResNet with {kind} blocks {list(blocks)}, which is none of "
            f"{', '.join(ARCH_OF.values())}"
        )
    refuse_other_arch(likely, arch, where)


def refuse_other_arch(found: str, arch: str, where: str) -> None:
    """Raises UserError unless both are the same."""
    if found != arch:
        raise UserError(f"{FIELD}: {where} holds a {found}, and spec.model.arch is {arch}", hint=f"use --arch {found}")


def _of_bundle(folder: Path) -> Source:
    description, weights = folder / BUNDLE_JSON, folder / BUNDLE_WEIGHTS
    if not description.is_file():
        raise UserError(
            f"{FIELD}: {folder} is a folder without {BUNDLE_JSON}, so it is no bundle",
            hint="a finished run has its bundle in output/bundle",
        )
    try:
        model = json.loads(description.read_bytes())
        source = Source(
            weights, str(model["arch"]), tuple(map(str, model["classes"])), str(model["digests"][BUNDLE_WEIGHTS])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{FIELD}: {description} is damaged: {error!r}") from None
    if not weights.is_file():
        raise UserError(f"{FIELD}: the bundle {folder} is torn: {BUNDLE_WEIGHTS} is missing")
    return source
