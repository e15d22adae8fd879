"""TorchServe handler: pictures in, classes with probabilities out, an error of its own for each bad picture.

It runs inside a TorchServe worker, from a .mar that `trainserve.package.mar` packed, and imports neither trainserve nor
`ts`: everything about the model comes from files beside it (`model.json`, `weights.safetensors`, `preprocess.py`,
`architecture.py`, `golden/`). TorchServe takes the only class of a handler module, so there must be exactly one here.

A request is one picture: the raw body, a multipart field, a gRPC input named `data`, `body` or `file`, or JSON
`{"data": "<base64>"}`. `top` (how many classes to answer) comes as an HTTP header, a multipart field, a gRPC input or a
JSON key of that name; TorchServe hands no query string to handlers.

An answer: `{"model", "version", "predictions": [{"class", "index", "probability"}, ...]}`, best first; an error has the
shape of TorchServe's own: `{"code", "type", "message"}`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file

PICTURE_FIELDS = ("data", "body", "file")
OPTION_FIELDS = ("top",)
# Settings in model-config.yaml under `handler:`, with the values that hold without them.
SETTINGS: dict[str, int | float] = {
    "topK": 5,  # classes in an answer
    "maxPixels": 50_000_000,  # width x height of a picture
    "maxUploadBytes": 16 * 1024 * 1024,  # of a picture as sent
    "goldenTolerance": 0.01,  # largest logit difference at load, relative to the largest logit (TF32 stays below)
    "threads": 1,  # torch threads of this worker
}


class ResnetClassifier:
    """One model on one device. `initialize` once, then `handle` for every batch."""

    model: torch.nn.Module
    device: torch.device
    classes: list[str]
    name: str
    version: str

    def initialize(self, context: Any) -> None:
        """Load the model and answer the golden pictures.

        Raises ValueError when the archive is incomplete or altered, a setting is unknown, or logits differ from those
        of training by more than `goldenTolerance`: TorchServe then does not become ready, and logs the sentence.
        """
        folder = Path(context.system_properties["model_dir"])
        self.settings = _settings((context.model_yaml_config or {}).get("handler") or {})
        torch.set_num_threads(int(self.settings["threads"]))

        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        for file, digest in description["digests"].items():
            _verify(folder / file, digest)
        self.classes = list(description["classes"])
        self.name = str(context.model_name)
        self.version = str((context.manifest or {}).get("model", {}).get("modelVersion", ""))

        self.preprocess = _module(folder / "preprocess.py")
        preprocessing = self.preprocess.Preprocessing.from_dict(description["preprocessing"])
        self.preprocessing = replace(preprocessing, max_pixels=int(self.settings["maxPixels"]))

        gpu = context.system_properties.get("gpu_id")
        self.device = torch.device(f"cuda:{gpu}" if gpu is not None and torch.cuda.is_available() else "cpu")
        architecture = _module(folder / "architecture.py")
        model = architecture.build(description["arch"], len(self.classes), description["stem"])
        model.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
        # channels_last: 1.2 to 1.35 times faster convolutions on CPUs, the same numbers to rounding.
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)

        self._check_golden(folder / "golden")
        size = self.preprocessing.image_size
        batch_size = int(context.system_properties.get("batch_size") or 1)
        self._logits(torch.zeros(min(batch_size, 8), 3, size, size))  # warm-up

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch of requests, in order: good ones share one forward pass, a bad one gets 400 or 413 alone."""
        answers = [b""] * len(data)
        pictures: list[tuple[int, int, torch.Tensor]] = []  # index in the batch, top, [3, S, S]
        for index, item in enumerate(data):
            headers = context.get_all_request_header(index)
            context.set_response_content_type(index, "application/json")
            if not _is_rest(headers):
                # Without this header gRPC StreamPredictions kills the worker; on REST it would hang the client.
                context.set_response_header(index, "ts_stream_next", "false")
            try:
                if headers.get("explain") == "True":
                    raise ValueError("this model answers predictions, not explanations")
                picture, option = _request(item, headers)
                top = _top(option, int(self.settings["topK"]))
                if len(picture) > self.settings["maxUploadBytes"]:
                    reason = f"{len(picture):,} bytes is more than the limit of {self.settings['maxUploadBytes']:,}"
                    answers[index] = _error(context, index, 413, "Payload Too Large", f"{reason} (maxUploadMib)")
                    continue
                pictures.append((index, top, self.preprocess.preprocess(picture, self.preprocessing)))
            except ValueError as error:  # ours, and the preprocessing's PictureError
                answers[index] = _error(context, index, 400, "Bad Request", str(error))
        if pictures:
            logits = self._logits(torch.stack([tensor for _, _, tensor in pictures]))
            for (index, top, _), probabilities in zip(pictures, logits.softmax(dim=1), strict=True):
                answers[index] = self._answer(probabilities, top)
        return answers

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 3, S, S] -> [B, classes], float32 on the CPU."""
        with torch.inference_mode():
            logits = self.model(images.to(self.device, memory_format=torch.channels_last))
            return logits.float().cpu()  # type: ignore[no-any-return]

    def _answer(self, probabilities: torch.Tensor, top: int) -> bytes:
        best = probabilities.topk(min(top, len(self.classes)))
        predictions = [
            {"class": self.classes[index], "index": index, "probability": probability}
            for probability, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        return json.dumps({"model": self.name, "version": self.version, "predictions": predictions}).encode()

    def _check_golden(self, folder: Path) -> None:
        """Raises ValueError when this machine computes other logits than training did."""
        tolerance = self.settings["goldenTolerance"]
        for golden in json.loads((folder / "expected.json").read_text(encoding="utf-8")):
            picture = (folder / golden["file"]).read_bytes()
            # The limit for strangers' pictures does not hold for the model's own.
            tensor = self.preprocess.preprocess(picture, replace(self.preprocessing, max_pixels=sys.maxsize))
            logits = self._logits(tensor.unsqueeze(0))[0]
            expected = torch.tensor(golden["logits"])
            scale = max(1.0, expected.abs().max().item())
            drift = (logits - expected).abs().max().item() / scale
            if not drift <= tolerance:  # also refuses NaN
                raise ValueError(
                    f"golden picture {golden['file']}: logits differ from training's by {drift:.2g} of the largest, "
                    f"more than {tolerance:g}; weights, preprocessing or libraries are not those of the bundle"
                )


def _settings(given: Mapping[str, Any]) -> dict[str, int | float]:
    unknown = sorted(set(given) - set(SETTINGS))
    if unknown:
        raise ValueError(f"model-config.yaml: unknown handler setting {', '.join(unknown)}; known: {sorted(SETTINGS)}")
    merged = {**SETTINGS, **given}
    for key, value in merged.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ValueError(f"model-config.yaml: handler.{key} must be a number above 0, got {value!r}")
    return merged


def _verify(file: Path, digest: str) -> None:
    if not file.is_file():
        raise ValueError(f"the archive has no {file.name}")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != digest:
        raise ValueError(f"{file.name} is not the file that was packed: sha256 {found}, expected {digest}")


def _module(file: Path) -> ModuleType:
    """The module in `file`, under a name of its own: two models in one process must not share one."""
    name = f"{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _is_rest(headers: Mapping[str, Any]) -> bool:
    """TorchServe adds `url_path` to HTTP requests; a gRPC request only has its inputs' names, with dicts as values."""
    return isinstance(headers.get("url_path"), str)


def _request(item: Mapping[str, Any], headers: Mapping[str, Any]) -> tuple[bytes, Any]:
    """The picture's bytes and the `top` that was asked for, or None. Raises ValueError with what was wrong."""
    fields = dict(item)
    if len(fields) == 1 and isinstance(fields.get("body"), dict | list):  # TorchServe decodes application/json
        fields = _json_fields(fields["body"])
    unknown = sorted(set(fields) - {*PICTURE_FIELDS, *OPTION_FIELDS})
    found = [name for name in PICTURE_FIELDS if name in fields]
    if _header(headers, "content-type").startswith("application/x-www-form-urlencoded"):
        raise ValueError("the picture came as a web form; send it with Content-Type: image/jpeg or as multipart")
    if unknown:
        shown = ", ".join(name[:40] for name in unknown[:5])
        raise ValueError(f"unknown field {shown}; a picture is in `data`, `body` or `file`, the only option is `top`")
    if len(found) != 1:
        number = "no picture" if not found else "more than one picture"
        raise ValueError(f"{number}: send one as the body, or in one field `data`, `body` or `file`")
    picture = fields[found[0]]
    if isinstance(picture, str):  # TorchServe decodes text/*
        picture = picture.encode()
    if not isinstance(picture, bytes | bytearray | memoryview):
        raise ValueError('JSON must be {"data": "<base64 of one picture>", "top": <number, optional>}')
    return bytes(picture), fields.get("top", _header(headers, "top") or None)


def _json_fields(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict) or not isinstance(body.get("data"), str):
        raise ValueError('JSON must be {"data": "<base64 of one picture>", "top": <number, optional>}')
    try:
        picture = base64.b64decode(body["data"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"`data` is not base64: {error}") from None
    return {**body, "data": picture}


def _header(headers: Mapping[str, Any], name: str) -> str:
    """An HTTP header by its lower-case name, or "". Fields of the request are among the headers, as dicts."""
    for key, value in headers.items():
        if key.lower() == name and isinstance(value, str):
            return value
    return ""


def _top(asked: Any, default: int) -> int:
    """How many classes to answer. Raises ValueError for anything but a whole number from 1."""
    if asked is None:
        return default
    text = bytes(asked).decode("ascii", "replace") if isinstance(asked, bytes | bytearray | memoryview) else str(asked)
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9 and int(digits) >= 1):
        raise ValueError(f"top must be a whole number from 1, got {text[:40]!r}")
    return int(digits)


def _error(context: Any, index: int, code: int, phrase: str, message: str) -> bytes:
    # The phrase goes into the HTTP status line: never anything that came with the request.
    context.set_response_status(code, phrase, index)
    return json.dumps({"code": code, "type": phrase.replace(" ", ""), "message": message}).encode()
