"""Bodies of requests and answers, as OpenAPI describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Schema(BaseModel):
    """camelCase outside."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, protected_namespaces=())


class ClassProbability(Schema):
    """One class of an answer."""

    class_: str = Field(alias="class", description="The class's name.")
    index: int = Field(ge=0, description="Its number, in the order of the network's outputs.")
    probability: float = Field(ge=0, le=1, description="All classes' sum is 1.")


class Prediction(Schema):
    """The answer for one picture."""

    model: str = Field(description="The model that answered.")
    version: str = Field(description="Its version.")
    predictions: list[ClassProbability] = Field(description="Best first.")


class Error(Schema):
    """Why there is no answer."""

    code: int = Field(description="The HTTP status.")
    type: str = Field(description="A word for programs.")
    message: str = Field(description="The reason, for people.")


class Ping(Schema):
    """Whether every model answers."""

    status: str = Field(description="Healthy or Unhealthy.")
    models: dict[str, str] = Field(description="What is wrong with each model that does not answer.")


class ModelEntry(Schema):
    """One model of the server."""

    name: str = Field(description="In URLs.")
    version: str = Field(description="As packaged.")
    classes: int = Field(description="How many there are.")
    top_k: int = Field(description="How many an answer has unless `top` says.")
    max_upload_bytes: int = Field(description="Of one picture as sent.")
    ready: bool = Field(description="Whether it answers now.")
    problem: str | None = Field(description="Why it does not, or null.")


class Models(Schema):
    """All models of the server."""

    models: list[ModelEntry]


PICTURE = {"type": "string", "format": "binary", "description": "One picture: JPEG, PNG, WebP, TIFF, ..."}
TOP = {"type": "integer", "minimum": 1, "description": "How many classes to answer."}


def _form(*fields: str) -> dict[str, Any]:
    properties = {**dict.fromkeys(fields, PICTURE), "top": TOP}
    described: dict[str, Any] = {"type": "object", "properties": properties}
    if len(fields) == 1:
        described["required"] = list(fields)
    else:
        described["description"] = "Exactly one of the fields that hold a picture."
        described["oneOf"] = [{"required": [field]} for field in fields]
    return {"schema": described}


FORM_BODY = {"required": True, "content": {"multipart/form-data": _form("file")}}
ANY_BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": PICTURE},
        "application/octet-stream": {"schema": PICTURE},
        "multipart/form-data": _form("data", "body", "file"),
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["data"],
                "additionalProperties": False,
                "properties": {"data": {"type": "string", "format": "byte", "description": "Base64."}, "top": TOP},
            }
        },
    },
}

RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route."""
    meaning = {
        400: "No picture, or the request is wrong.",
        403: "Another host's name in `Host`, or a page of another site.",
        404: "No such model or version; the message names those there are.",
        405: "Another method is allowed here.",
        408: "The request did not come in time.",
        413: "The picture has more bytes than the limit, which the message names.",
        429: "The model's queue is full.",
        500: "The model failed on this picture.",
        503: "The model does not answer now, for the reason in the message.",
    }
    return {
        status: {
            "model": Error,
            "description": meaning[status],
            **({"headers": RETRY_AFTER} if status in {429, 503} else {}),
        }
        for status in statuses
    }
