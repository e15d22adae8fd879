"""What TorchServe hands to a handler, without TorchServe: the part of `ts.context.Context` that ours uses."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trainserve.package.archive import MANIFEST
from trainserve.package.mar import CONFIG


@dataclass(frozen=True)
class ModelContext:
    """For `initialize`: the model's folder, name and settings."""

    model_name: str
    manifest: dict[str, Any]
    system_properties: dict[str, Any]
    model_yaml_config: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, name: str, batch_size: int) -> ModelContext:
        """Of an unpacked archive that is served as `name`. The first GPU, which the handler takes if there is one."""
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        settings = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        properties = {"model_dir": str(folder), "gpu_id": 0, "batch_size": batch_size}
        return cls(name, manifest, properties, settings)


@dataclass
class Reply:
    """What a handler said about one request of a batch, beside the body."""

    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


class BatchContext:
    """For `handle`: the headers of each request in, status and headers of each answer out. One for each batch."""

    def __init__(self, headers: list[dict[str, str]]) -> None:
        self._headers = headers
        self.replies = [Reply() for _ in headers]

    def get_all_request_header(self, index: int) -> dict[str, str]:
        """Headers of request `index`, names in lower case."""
        return self._headers[index]

    def set_response_content_type(self, index: int, value: str) -> None:
        """Content type of answer `index`."""
        self.replies[index].content_type = value

    def set_response_header(self, index: int, key: str, value: str) -> None:
        """One more header of answer `index`."""
        self.replies[index].headers[key] = value

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:  # noqa: ARG002  HTTP/1.1 has its own phrases
        """Status of answer `idx`, 200 unless set."""
        self.replies[idx].status = code
