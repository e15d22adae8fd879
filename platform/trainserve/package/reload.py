"""Load an exported model and answer tensors: run as a program of its own, which is how an export is checked.

`python -P reload.py FORMAT MODEL INPUTS`, where INPUTS is a JSON list of files of float32 numbers with their shapes:
`[{"file": "0.bin", "shape": [1, 3, 224, 224]}, ...]`. Prints JSON: `logits`, one nested list an input; `metadata`, the
model.json inside the file; `imported`, those of the packages below that this took.

Imports what the format needs and nothing else: torch for torchscript and torch-export, onnxruntime for onnx.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

INNER = "model.json"
PACKAGES = ("onnxruntime", "torch", "torchvision", "trainserve")


def main(arguments: list[str]) -> int:
    form, model, inputs = arguments
    items = [(Path(item["file"]).read_bytes(), item["shape"]) for item in json.loads(Path(inputs).read_text())]
    answer = _onnx if form == "onnx" else _torch
    logits, metadata = answer(form, model, items)
    imported = [package for package in PACKAGES if package in sys.modules]
    json.dump({"logits": logits, "metadata": metadata, "imported": imported}, sys.stdout)
    return 0


def _torch(form: str, model: str, items: list[tuple[bytes, list[int]]]) -> tuple[list[Any], str]:
    import torch

    extra: dict[str, Any] = {INNER: ""}
    if form == "torchscript":
        network: Any = torch.jit.load(model, map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
    else:
        network = torch.export.load(model, extra_files=extra).module()
    metadata = extra[INNER]
    with torch.inference_mode():
        tensors = [torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(shape) for data, shape in items]
        logits = [network(tensor).tolist() for tensor in tensors]
    return logits, metadata.decode() if isinstance(metadata, bytes) else metadata


def _onnx(_form: str, model: str, items: list[tuple[bytes, list[int]]]) -> tuple[list[Any], str]:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map.get(INNER, "")
    arrays = [np.frombuffer(data, dtype=np.float32).reshape(shape) for data, shape in items]
    return [session.run(None, {"images": array})[0].tolist() for array in arrays], metadata


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
