"""`model.json`: what a model is, in a bundle and in a .mar. Needs no torch to read."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from trainserve.errors import UserError
from trainserve.spec.classifier import Arch, ServeSpec

WEIGHTS = "weights.safetensors"
PREPROCESS = "preprocess.py"
ARCHITECTURE = "architecture.py"
MODEL_JSON = "model.json"
GOLDEN = "golden"
EXPECTED = "golden/expected.json"


class Golden(BaseModel):
    """One line of `golden/expected.json`: a picture and what eager fp32 on the CPU of training made of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", description="Name in the folder `golden`.")
    logits: list[float] = Field(description="One number a class.")
    class_: str = Field(alias="class", description="The class with the largest logit.")


class ModelDescription(BaseModel):
    """The content of `model.json`. A newer schema version is refused, not half understood."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, protected_namespaces=())

    schema_version: Literal[1] = 1
    arch: Arch
    stem: Literal["imagenet", "small"]
    classes: list[str] = Field(min_length=1, description="Names, in the order of the logits.")
    preprocessing: dict[str, Any] = Field(description="`Preprocessing.to_dict()` of preprocess.py.")
    metrics: dict[str, float] = Field(description="On the validation pictures, 0 to 1.")
    lineage: dict[str, Any] = Field(description="Where the weights come from: job, code, data, seed, spec.")
    weights_digest: str = Field(description="Of the tensors, whatever file holds them (train/checkpoint.py).")
    serve: ServeSpec = Field(description="How to serve it unless packaging says otherwise.")
    digests: dict[str, str] = Field(description="sha256 of every other file, by its path in the bundle.")

    @model_validator(mode="after")
    def _consistent(self) -> ModelDescription:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must differ from each other")
        missing = {WEIGHTS, PREPROCESS, ARCHITECTURE, EXPECTED} - set(self.digests)
        if missing:
            raise ValueError(f"digests lack {', '.join(sorted(missing))}")
        return self

    def to_json(self) -> bytes:
        """The bytes of `model.json`: a pure function of the values."""
        values = self.model_dump(mode="json", by_alias=True)
        return json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def parse(data: bytes, where: str) -> ModelDescription:
    """The inverse of `to_json`. Raises UserError that names `where` and the first wrong field."""
    try:
        return ModelDescription.model_validate_json(data)
    except ValidationError as error:
        raise UserError(f"{where}: {_first(error)}", hint="package the run again with this version") from None


def parse_expected(data: bytes, where: str) -> list[Golden]:
    """The content of `golden/expected.json`. Raises UserError."""
    try:
        goldens = [Golden.model_validate(item) for item in json.loads(data)]
    except ValidationError as error:
        raise UserError(f"{where}: {_first(error)}", hint="package the run again with this version") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{where}: not the JSON that packaging writes: {error}", hint="package the run again") from None
    if not goldens:
        raise UserError(f"{where}: no golden picture", hint="package the run again")
    return goldens


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    return f"{path}: {first['msg']}" if path else first["msg"]
