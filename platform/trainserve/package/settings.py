"""`model-config.yaml` of a .mar: how TorchServe runs this model, from a ServeSpec. Pure."""

from __future__ import annotations

from typing import Any

import yaml

from trainserve.machine.usage import MIB
from trainserve.spec.classifier import ServeSpec

RESPONSE_TIMEOUT_S = 30  # TorchServe kills the worker beyond it, so it is well above the worst batch
STARTUP_TIMEOUT_S = 120
# A worker that fails longer than this is given up, and /ping says Unhealthy (TorchServe's default is 300).
MAX_RETRY_TIMEOUT_S = 60


def model_config(serve: ServeSpec) -> str:
    """The YAML. Without `workers` the server decides: one a core (config.properties default_workers_per_model)."""
    config: dict[str, Any] = {
        "batchSize": serve.batch_size,
        "maxBatchDelay": serve.max_batch_delay_ms,
        "responseTimeout": RESPONSE_TIMEOUT_S,
        "startupTimeout": STARTUP_TIMEOUT_S,
        "maxRetryTimeoutInSec": MAX_RETRY_TIMEOUT_S,
        "handler": {
            "topK": serve.top_k,
            "maxPixels": serve.max_pixels,
            "maxUploadBytes": serve.max_upload_mib * MIB,
        },
    }
    if serve.workers is not None:
        config["minWorkers"] = config["maxWorkers"] = serve.workers
    return yaml.safe_dump(config, sort_keys=True)
