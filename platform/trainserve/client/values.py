"""The spec's values as keywords, for editors and type checkers: a test says that these are the flags' own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from trainserve.spec.classifier import Arch


class TrainValues(TypedDict, total=False):
    """What `platform train` takes as flags; docs/reference/spec.md says what each means. None is not given."""

    data: str | Path | None
    data_digest: str | None
    data_cache: str | None
    val_split: float | None
    skip_bad: bool | None
    allow_empty_classes: bool | None
    max_pixels: int | None
    check: Literal["auto", "full", "fast", "none"] | None
    crop_scale: tuple[float, float] | None
    flip: float | None
    jitter: float | None
    arch: Arch | None
    stem: Literal["auto", "imagenet", "small"] | None
    image_size: int | None
    weights: str | Path | None
    nodes: int | str | None
    nproc_per_node: int | None
    output: str | None
    epochs: int | None
    batch_size: int | None
    lr: float | None
    momentum: float | None
    weight_decay: float | None
    schedule: Literal["cosine", "step", "constant"] | None
    warmup_epochs: float | None
    step_epochs: int | None
    label_smoothing: float | None
    amp: Literal["none", "bf16", "fp16"] | None
    device: Literal["auto", "cpu", "cuda"] | None
    seed: int | None
    workers: int | None
    checkpoint_every_steps: int | None
    keep_last: int | None
    backoff_limit: int | None
    deadline_seconds: int | None
    stall_seconds: int | None
    image: str | None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None
    gpus: int | None
    gpu_resource: str | None
    cpu: str | int | float | None
    memory: str | int | float | None
    shared_memory: str | int | float | None
    resource_claim: Sequence[str] | None
    node_selector: Mapping[str, str] | None
    toleration: Sequence[Mapping[str, Any]] | None
    affinity: Mapping[str, Any] | None
    priority_class: str | None
    runtime_class: str | None
    service_account: str | None
    pull_secret: Sequence[str] | None
    env: Mapping[str, str] | None
    env_from: Sequence[str] | None
    host_network: bool | None
    overlay: Mapping[str, Any] | None
    queue: str | None
    gang: Literal["auto", "together", "apart"] | None


class ServeValues(TypedDict, total=False):
    """What `platform package` takes as flags."""

    workers: int | None
    batch_size: int | None
    max_batch_delay_ms: int | None
    max_upload_mib: int | None
    max_pixels: int | None
    top_k: int | None
