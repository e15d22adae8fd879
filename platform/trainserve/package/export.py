"""A bundle in a format that others load, checked before it has a name.

What was written is loaded again by a process that imports that format's package only, and its answers are compared with
the golden logits of training.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainserve.errors import EnvironmentProblem, RunFailed, UserError
from trainserve.machine.files import publish, scratch_folder, sha256_of
from trainserve.machine.target import check_target
from trainserve.package import formats, reload
from trainserve.package.bundle import read_bundle
from trainserve.package.description import MODEL_JSON
from trainserve.package.formats import FORMATS, Format
from trainserve.package.network import golden_images, network_of

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-3  # largest difference of a logit, as a share of the largest logit (other kernels round otherwise)
LOAD_S = 300.0
NOISE_SEED = 0


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how well it answers."""

    path: Path
    format: str
    sha256: str
    bytes: int
    dynamic_batch: bool
    image_size: int  # px
    classes: tuple[str, ...]  # in the order of the logits
    max_difference: float  # of any logit, from those of training and of the network in Python
    tolerance: float  # in the same unit
    checked: int  # pictures
    loaded_by: str  # what loads it, in words


def export(bundle: Path, form: str, destination: Path, *, dynamic_batch: bool = True) -> Exported:
    """Write the bundle's network to `destination`, replacing a file that is there.

    Input `images`: float32 [batch, 3, S, S], normalised as model.json, which is inside the file, says. Output `logits`:
    [batch, classes]. With `dynamic_batch` any batch is taken, else exactly one picture. Raises UserError for a wrong
    bundle, format or destination, EnvironmentProblem where a package is missing or the file does not load again,
    RunFailed where it answers otherwise than training did.
    """
    wanted = format_of(form)
    if form == "torchscript" and not dynamic_batch:
        raise UserError("torchscript takes any batch and cannot be told to take one", hint="use another --format")
    _check_destination(destination, wanted)
    formats.require(wanted)
    source = read_bundle(bundle)
    import torch

    network, images = network_of(source), golden_images(source)
    noise = torch.randn(images[:1].shape, generator=torch.Generator().manual_seed(NOISE_SEED))
    # Each golden picture alone, noise alone, and three together where any batch is taken.
    inputs = [*(image.unsqueeze(0) for image in images), noise]
    if dynamic_batch:
        inputs.append(torch.cat([images[:1], noise, images[-1:]]))
    expected = [torch.tensor([item.logits]) for item in source.golden]
    with torch.inference_mode():
        eager = [network(tensor) for tensor in inputs]
    expected += eager[len(expected) :]
    tolerance = TOLERANCE * max(float(logits.abs().max()) for logits in expected)
    _compare(eager, expected, tolerance, "the network in Python on this machine")
    with scratch_folder(destination) as folder:
        draft = folder / f"model{wanted.suffix}"
        metadata = source.description.to_json().decode()
        example = torch.cat([images[:1], noise]) if dynamic_batch else images[:1]
        formats.write(wanted, network, example, metadata, draft, dynamic_batch=dynamic_batch)
        found = _reloaded(wanted, draft, inputs, folder)
        if found["metadata"] != metadata:
            raise EnvironmentProblem(f"{wanted.name}: the written file does not give {MODEL_JSON} back")
        strangers = set(found["imported"]) - {wanted.loads_with}
        if strangers:  # then the check would say nothing about a machine that has this package only
            raise EnvironmentProblem(f"{wanted.name}: loading it again took {', '.join(sorted(strangers))} too")
        answers = [torch.tensor(logits) for logits in found["logits"]]
        difference = _compare(answers, expected, tolerance, f"the {wanted.name} file, loaded again,")
        digest, size = sha256_of(draft), draft.stat().st_size
        publish(draft, destination)
    return Exported(
        destination, wanted.name, digest, size, dynamic_batch, int(images.shape[-1]),
        tuple(source.description.classes), difference, tolerance, sum(len(tensor) for tensor in inputs),
        wanted.loaded_by,
    )  # fmt: skip


def format_of(name: str) -> Format:
    """The format of this name. Raises UserError."""
    if name not in FORMATS:
        raise UserError(f"format {name!r} is not one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _check_destination(destination: Path, form: Format) -> None:
    check_target(destination, f"model{form.suffix}")
    if destination.suffix != form.suffix:
        raise UserError(
            f"{destination}: the name of a file of format {form.name} ends with {form.suffix}",
            hint=f"--out {destination.stem}{form.suffix}",
        )


def _reloaded(form: Format, model: Path, inputs: Sequence[torch.Tensor], folder: Path) -> dict[str, Any]:
    """What a fresh process makes of the inputs with the written file."""
    items = []
    for index, tensor in enumerate(inputs):
        (folder / f"{index}.bin").write_bytes(tensor.contiguous().numpy().tobytes())
        items.append({"file": f"{index}.bin", "shape": list(tensor.shape)})
    (folder / "inputs.json").write_text(json.dumps(items))
    # -P: the program's own folder, which is this package's, is not where it imports from.
    command = [sys.executable, "-P", "-W", "ignore", str(Path(reload.__file__).absolute()), form.name, model.name]
    try:
        done = subprocess.run(
            [*command, "inputs.json"], cwd=folder, capture_output=True, text=True, check=False, timeout=LOAD_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(f"{form.name}: the written file was not loaded within {LOAD_S:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise EnvironmentProblem(f"{form.name}: the written file does not load again: {last}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _compare(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], tolerance: float, who: str) -> float:
    """The largest difference. Raises RunFailed where it is more than `tolerance`, or a number is none."""
    largest = 0.0
    for answer, right in zip(found, expected, strict=True):
        if not bool((answer - answer == 0).all()):  # NaN, or infinite
            raise RunFailed(
                f"{who} gives logits that are no numbers (NaN)",
                hint="nothing was written; the weights are broken: train again, with a smaller --lr",
            )
        difference = float((answer - right).abs().max()) if answer.shape == right.shape else float("nan")
        if not difference <= tolerance:
            raise RunFailed(
                f"{who} gives logits of shape {list(answer.shape)} that differ by {difference:.3g} from those of "
                f"training; allowed is {tolerance:.3g}",
                hint="nothing was written; another version of torch may help",
            )
        largest = max(largest, difference)
    return largest
