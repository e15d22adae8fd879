"""What a TorchServe worker hands to a handler, without TorchServe."""

from __future__ import annotations

import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

REST = {"explain": "False", "url_path": ""}  # TorchServe adds these to every HTTP request


class Context:
    """`ts.context.Context` as far as a handler may use it."""

    def __init__(self, folder: Path, *, batch_size: int = 1, **settings: Any) -> None:
        manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())
        config = yaml.safe_load((folder / "model-config.yaml").read_text())
        config["handler"] |= settings
        self.model_name = manifest["model"]["modelName"]
        self.manifest = manifest
        self.system_properties = {"model_dir": str(folder), "gpu_id": None, "batch_size": batch_size}
        self.model_yaml_config = config
        self.batch([])

    def batch(self, headers: list[dict[str, Any]]) -> Context:
        """Begin a batch of requests with these headers."""
        self.headers = headers
        self.statuses: dict[int, tuple[int, str]] = {}
        self.response_headers: list[dict[str, str]] = [{} for _ in headers]
        return self

    def get_all_request_header(self, index: int) -> dict[str, Any]:
        return self.headers[index]

    def set_response_content_type(self, index: int, value: str) -> None:
        self.set_response_header(index, "content-type", value)

    def set_response_header(self, index: int, key: str, value: str) -> None:
        self.response_headers[index][key] = value

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        self.statuses[idx] = (code, phrase)


def extract(mar: Path, folder: Path) -> Path:
    with zipfile.ZipFile(mar) as archive:
        archive.extractall(folder)
    return folder


def load_module(file: Path) -> ModuleType:
    """The module in `file`, under the file's own name, as TorchServe imports it."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module
