"""The spec's values as keywords, for editors and type checkers: a test says that these are the flags' own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypedDict

from trainserve.spec.classifier import Arch


class TrainValues(TypedDict, total=False):
    """What `platform train` takes as flags; docs/reference/spec.md says what each means. None is not given."""

    data: str | Path | None
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
    nodes: int | None
    nproc_per_node: int | None
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


class ServeValues(TypedDict, total=False):
    """What `platform package` takes as flags."""

    workers: int | None
    batch_size: int | None
    max_batch_delay_ms: int | None
    max_upload_mib: int | None
    max_pixels: int | None
    top_k: int | None
