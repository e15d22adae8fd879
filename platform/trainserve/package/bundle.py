"""A bundle: the folder a run leaves, from which every package is made.

weights.safetensors   torchvision's state_dict keys
preprocess.py         the code that made the tensors, byte for byte (train/preprocess.py)
architecture.py       the code that builds the network (train/architecture.py)
model.json            description.py; the sha256 of every other file
golden/               a few pictures and expected.json, the logits that training's machine computed for them
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainserve.errors import UserError
from trainserve.machine.files import new_folder, sha256_of
from trainserve.package import description
from trainserve.package.description import EXPECTED, GOLDEN, MODEL_JSON, WEIGHTS, Golden, ModelDescription
from trainserve.package.golden import write_golden
from trainserve.spec.classifier import ServeSpec

if TYPE_CHECKING:
    import torch

    from trainserve.train.checkpoint import Checkpoint


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, whole and unaltered when `read_bundle` returned it."""

    path: Path
    description: ModelDescription
    golden: tuple[Golden, ...]


def write_bundle(
    checkpoint: Checkpoint, samples: Sequence[Path], destination: Path, lineage: Mapping[str, Any]
) -> Path:
    """Write the bundle of a checkpoint to `destination`, replacing what is there, and return its path.

    `samples` are pictures to choose golden ones from, evenly over the sequence (sorted by class it covers many).
    Raises DataError when none of them can be read.
    """
    from safetensors.torch import save

    from trainserve.train.checkpoint import weights_digest

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
    preprocessing = checkpoint.preprocessing
    code = {name: _train_source(name) for name in (description.PREPROCESS, description.ARCHITECTURE)}
    with new_folder(destination) as folder:
        (folder / WEIGHTS).write_bytes(save(weights))  # a full disk is an OSError then, as everywhere
        for name, source in code.items():
            (folder / name).write_bytes(source)
        (folder / GOLDEN).mkdir()
        model = _eager(checkpoint.arch, checkpoint.stem, len(checkpoint.classes), weights)
        serve = checkpoint.classifier["spec"].get("serve", {})
        limits = ServeSpec.model_validate(serve)
        golden = write_golden(folder / GOLDEN, samples, model, preprocessing, checkpoint.classes, limits)
        values = [item.model_dump(by_alias=True) for item in golden]
        (folder / EXPECTED).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        model_json = ModelDescription.model_validate(
            {
                "arch": checkpoint.arch,
                "stem": checkpoint.stem,
                "classes": list(checkpoint.classes),
                "preprocessing": preprocessing.to_dict(),
                "metrics": dict(checkpoint.metrics),
                "lineage": dict(lineage),
                "weightsDigest": weights_digest(weights),
                "serve": serve,
                "digests": {file: sha256_of(folder / file) for file in files},
            }
        )
        (folder / MODEL_JSON).write_bytes(model_json.to_json())
    return destination


def read_bundle(path: Path) -> Bundle:
    """Read and verify a bundle. Raises UserError for a folder that is none, is torn or was altered."""
    hint = "a finished run has its bundle in output/bundle"
    if not path.is_dir():
        raise UserError(f"{path}: no such bundle folder" if not path.exists() else f"{path}: not a folder", hint=hint)
    if not (path / MODEL_JSON).is_file():
        raise UserError(f"{path}: not a bundle: it has no {MODEL_JSON}", hint=hint)
    model = description.parse((path / MODEL_JSON).read_bytes(), str(path / MODEL_JSON))
    for file, digest in model.digests.items():
        if not _inside(file):
            raise UserError(f"{path / MODEL_JSON}: digests name {file!r}, which is outside the bundle")
        if not (path / file).is_file():
            raise UserError(
                f"{path}: torn bundle: {file} is missing", hint="resume the run; it writes the bundle again"
            )
        if sha256_of(path / file) != digest:
            raise UserError(
                f"{path / file}: altered: its sha256 is not that in {MODEL_JSON}",
                hint="resume the run; it writes the bundle again",
            )
    golden = description.parse_expected((path / EXPECTED).read_bytes(), str(path / EXPECTED))
    for item in golden:
        if f"{GOLDEN}/{item.file}" not in model.digests or len(item.logits) != len(model.classes):
            raise UserError(f"{path / EXPECTED}: {item.file} does not fit {MODEL_JSON}", hint="package the run again")
    return Bundle(path, model, tuple(golden))


def _inside(file: str) -> bool:
    parts = Path(file).parts
    return not Path(file).is_absolute() and ".." not in parts and file == "/".join(parts)


def _train_source(name: str) -> bytes:
    from importlib import resources

    return (resources.files("trainserve.train") / name).read_bytes()


def _eager(arch: str, stem: str, num_classes: int, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The network in fp32 on the CPU, in evaluation mode."""
    from trainserve.train.architecture import build

    model = build(arch, num_classes, stem)
    model.load_state_dict(weights, strict=True)
    return model.float().eval()
