"""The formats of an export, and how torch writes each. The network's one input is `images`, its output `logits`."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainserve.errors import not_installed
from trainserve.package.reload import INNER

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Format:
    """One format, and who can load it."""

    name: str
    suffix: str
    packages: tuple[str, ...]  # beside torch, to write and to check it
    loads_with: str  # the one package that loads it again
    loaded_by: str  # in words


FORMATS = {
    "torchscript": Format("torchscript", ".pt", (), "torch", "torch.jit.load, or libtorch in C++"),
    "torch-export": Format("torch-export", ".pt2", (), "torch", "torch.export.load"),
    "onnx": Format("onnx", ".onnx", ("onnx", "onnxscript", "onnxruntime"), "onnxruntime", "onnxruntime and others"),
}  # fmt: skip


def require(form: Format) -> None:
    """Raises EnvironmentProblem where a package is missing, before anything is computed."""
    for package in form.packages:
        if importlib.util.find_spec(package) is None:
            raise not_installed(package, "export")


def write(
    form: Format, network: torch.nn.Module, example: torch.Tensor, metadata: str, file: Path, *, dynamic_batch: bool
) -> None:
    """Write `network` to `file` with `metadata` (model.json) inside.

    `example` has the shape of an input, with two pictures for any batch, else with the one batch that will be taken.
    """
    with _quiet():
        if form.name == "torchscript":
            _torchscript(network, example, metadata, file)
        elif form.name == "torch-export":
            _torch_export(network, example, metadata, file, dynamic_batch=dynamic_batch)
        else:
            _onnx(network, example, metadata, file, dynamic_batch=dynamic_batch)


def _torchscript(network: torch.nn.Module, example: torch.Tensor, metadata: str, file: Path) -> None:
    """A trace: a ResNet has no branches, so what it did to the example is what it does to any batch."""
    import torch

    # Not checked here, but against the golden logits afterwards.
    traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(file), _extra_files={INNER: metadata.encode()})


def _torch_export(
    network: torch.nn.Module, example: torch.Tensor, metadata: str, file: Path, *, dynamic_batch: bool
) -> None:
    import torch

    program = torch.export.export(network, (example,), dynamic_shapes=_shapes(dynamic_batch))
    torch.export.save(program, file, extra_files={INNER: metadata})


def _onnx(network: torch.nn.Module, example: torch.Tensor, metadata: str, file: Path, *, dynamic_batch: bool) -> None:
    import torch

    program: Any = torch.onnx.export(
        network, (example,), dynamo=True, dynamic_shapes=_shapes(dynamic_batch), verbose=False,
        input_names=["images"], output_names=["logits"],
    )  # fmt: skip
    program.model.metadata_props[INNER] = metadata
    program.save(str(file), external_data=False)  # one file; a ResNet is far below the 2 GB that this may have


def _shapes(dynamic_batch: bool) -> Any:
    import torch

    return ({0: torch.export.Dim("batch", min=1)},) if dynamic_batch else None


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch says that TorchScript has a successor, and its exporters talk of their own workings: no news to a user.

    The command says the first in its own words; what the file is worth is measured afterwards.
    """
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\..* is deprecated", category=Warning)
        warnings.filterwarnings("ignore", category=Warning, module=r"(torch|onnx|onnxscript|onnx_ir|copyreg)\b")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
