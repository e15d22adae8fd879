"""The Classifier: data, model, train, serve. One type for flags, `-f file.yaml` and the custom resource.

No enum value is a YAML 1.1 boolean word (`off`, `no`): a file would turn it into `false`.

Python attributes are snake_case, files are camelCase; every field's description carries unit, range and the meaning of
its default. Values that follow from others are computed in `spec/derive.py`, never stored here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from trainserve.spec import location
from trainserve.spec.base import Spec
from trainserve.spec.pod import PodSpec

MAX_NODES = 1024
NODES_WORDS = f'an integer >= 1 and <= {MAX_NODES}, or MIN:MAX such as "2:4"'
STORE_WORDS = "pvc://CLAIM[/sub/path] or a bucket's URL"
CACHE_WORDS = "hostpath:///abs/path or pvc://CLAIM[/sub/path]"
Arch = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


class AugmentSpec(Spec):
    """Random changes of training pictures; validation pictures are never changed."""

    crop_scale: tuple[float, float] = Field(
        (0.08, 1.0), description="Smallest and largest share of the area that RandomResizedCrop keeps, 0 to 1."
    )
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a left-right flip. 0 for digits and letters.")
    jitter: float = Field(0.2, ge=0, le=1, description="ColorJitter strength of brightness, contrast and saturation.")

    @model_validator(mode="after")
    def _ordered(self) -> AugmentSpec:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"cropScale [{low}, {high}] must be two numbers, 0 < smallest <= largest <= 1")
        return self


class DataSpec(Spec):
    """Where the labelled pictures are."""

    path: str = Field(
        min_length=1,
        description="Pictures: `train/` and `val/` with one folder a class, or the class folders themselves. A folder "
        "of this machine; for a cluster also pvc://CLAIM[/sub/path], hostpath:///abs/path, or a URL (s3://, gs://, "
        "https://, ...) of such a folder or of one archive of it.",
    )
    digest: str | None = Field(
        None,
        pattern=r"^sha256:[0-9a-f]{64}$",
        description="What the fetched data must be, as `platform data push` prints it. Default: it is not compared.",
    )
    cache: str | None = Field(
        None,
        min_length=1,
        json_schema_extra={"allowed": CACHE_WORDS + ", or null"},
        description="Where a pod keeps what it fetches from a URL: hostpath:///abs/path is there for the next pods of "
        "the node too, pvc://CLAIM[/sub/path] for all. Default: a folder that goes with the pod.",
    )
    val_split: float = Field(
        0.2, gt=0, lt=1, description="Share of each class held out for validation where there is no `val/`; stratified."
    )
    skip_bad: bool = Field(False, description="Train without unreadable pictures (counted) instead of refusing.")
    allow_empty_classes: bool = Field(
        False, description="Keep a class folder without pictures as a class; its index stays, the others' do not move."
    )
    max_pixels: int = Field(
        178_956_970,
        ge=1,
        json_schema_extra={"unit": "pixels"},
        description="Largest picture accepted, in pixels (width x height); as Pillow sets it.",
    )
    check: Literal["auto", "full", "fast", "none"] = Field(
        "auto",
        description="How pictures are checked before training: full decodes each, fast reads head and tail, "
        "auto is full up to 20,000 pictures and fast above.",
    )
    augment: AugmentSpec = Field(default_factory=AugmentSpec, description="Random changes of training pictures.")

    @field_validator("path")
    @classmethod
    def _path_is_a_location(cls, value: str) -> str:
        location.parse(value)
        return value

    @field_validator("cache")
    @classmethod
    def _cache_is_a_volume(cls, value: str | None) -> str | None:
        found = None if value is None else location.parse(value)
        if isinstance(found, location.Url) or (isinstance(found, location.Folder) and not found.path.startswith("/")):
            raise ValueError(f"{value!r} is not allowed; allowed: {CACHE_WORDS}")
        return value


class ModelSpec(Spec):
    """Which network."""

    arch: Arch = Field("resnet18", description="torchvision's ResNet.")
    stem: Literal["auto", "imagenet", "small"] = Field(
        "auto",
        description="First layers: imagenet is 7x7 stride 2 and max-pool; small is 3x3 stride 1 without pool. "
        "auto: small up to 64 px.",
    )
    image_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        json_schema_extra={"unit": "px"},
        description="Side of the square picture the network sees, in pixels. Default: 224, or for small pictures "
        "(median short side up to 64 px) their own size rounded up to a multiple of 8, at least 16.",
    )
    weights: str | None = Field(
        None,
        min_length=1,
        description="What training starts from: imagenet (torchvision's weights), a .safetensors or .pth file, a "
        "bundle's folder, or on the command line a finished run. The last layer is kept where the classes are the "
        "same; lr does not change by it, and 0.01 often suits better. Default: random weights.",
    )


def node_range(nodes: Any) -> tuple[int, int]:
    """Fewest and most nodes of `spec.train.nodes`; (0, 0) where that is neither a number nor a range."""
    if isinstance(nodes, int) and not isinstance(nodes, bool):
        return nodes, nodes
    low, colon, high = nodes.partition(":") if isinstance(nodes, str) else ("", "", "")
    if not (colon and low.isascii() and low.isdigit() and high.isascii() and high.isdigit() and len(low + high) < 10):
        return 0, 0
    return int(low), int(high)


class TrainSpec(Spec):
    """How to train."""

    nodes: int | str = Field(
        1,
        json_schema_extra={"unit": "nodes", "allowed": NODES_WORDS},
        description="Number of nodes: one Master and nodes - 1 Workers. On a cluster also MIN:MAX: an elastic run, "
        "which goes on with any number of Workers from MIN to MAX.",
    )
    nproc_per_node: int | None = Field(
        None,
        ge=1,
        le=64,
        json_schema_extra={"unit": "processes"},
        description="Training processes on each node (one a GPU). Default: spec.pod.gpus, or 1.",
    )
    output: str | None = Field(
        None,
        min_length=1,
        json_schema_extra={"allowed": STORE_WORDS + ", or null"},
        description="Where a run on a cluster writes, into a folder of its name: pvc://CLAIM[/sub/path], or the URL "
        "of a bucket's folder. Required there, by a flag or by the context; on a laptop it has no effect.",
    )
    epochs: int = Field(
        10, ge=1, le=100_000, json_schema_extra={"unit": "epochs"}, description="Passes over the training pictures."
    )
    batch_size: int = Field(
        64,
        ge=1,
        json_schema_extra={"unit": "pictures a step"},
        description="Global batch: pictures a step over all processes. The share of a process is derived.",
    )
    lr: float = Field(0.1, gt=0, le=100, description="Peak learning rate, for the global batch as given.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum of SGD; 0 is plain SGD.")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="L2 penalty; never on batch-norm and bias.")
    schedule: Literal["cosine", "step", "constant"] = Field("cosine", description="Learning rate after the warm-up.")
    warmup_epochs: float = Field(
        1.0, ge=0, json_schema_extra={"unit": "epochs"}, description="Epochs of linear warm-up from near 0 to lr."
    )
    step_epochs: int = Field(
        30,
        ge=1,
        json_schema_extra={"unit": "epochs"},
        description="With schedule step: lr is multiplied by 0.1 every so many epochs.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Cross entropy label smoothing.")
    amp: Literal["none", "bf16", "fp16"] = Field("none", description="Automatic mixed precision; fp16 needs a GPU.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where a GPU is visible, else cpu.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of initial weights, split, order and augmentation.")
    workers: int | None = Field(
        None, ge=0, le=64, description="Loader processes of each training process. Default: from the cores available."
    )
    checkpoint_every_steps: int = Field(
        0,
        ge=0,
        json_schema_extra={"unit": "steps"},
        description="Checkpoint every so many steps beside each epoch's end; 0: at each epoch's end only.",
    )
    keep_last: int = Field(
        2,
        ge=1,
        le=1000,
        json_schema_extra={"unit": "checkpoints"},
        description="Newest checkpoints kept; the best one is always kept too.",
    )
    backoff_limit: int = Field(
        3, ge=0, le=1000, json_schema_extra={"unit": "restarts"}, description="Gang restarts before the run is Failed."
    )
    deadline_seconds: int | None = Field(
        None, ge=1, json_schema_extra={"unit": "s"}, description="Longest time the run may be active. Default: none."
    )
    stall_seconds: int | None = Field(
        None,
        ge=1,
        json_schema_extra={"unit": "s"},
        description="Longest time without a training step: then the stacks of all ranks are logged and the "
        "gang is restarted. Default: 20 times the median step, at least 60. A large number, 1000000, turns it off.",
    )

    @field_validator("nodes", mode="before")
    @classmethod
    def _nodes_are_a_number_or_a_range(cls, value: Any) -> Any:
        low, high = node_range(value)
        if not 1 <= low <= high <= MAX_NODES:
            shown = {True: "true", False: "false"}.get(value, repr(value)) if isinstance(value, bool) else repr(value)
            raise ValueError(f"{shown} is not allowed; allowed: {NODES_WORDS}")
        return value

    @field_validator("output")
    @classmethod
    def _output_is_a_store(cls, value: str | None) -> str | None:
        if value is not None and not location.is_store(location.parse(value)):
            raise ValueError(f"{value!r} is not allowed; allowed: {STORE_WORDS}")
        return value

    @field_validator("stall_seconds", mode="before")
    @classmethod
    def _stall_is_positive(cls, value: Any) -> Any:
        if isinstance(value, int | float) and value < 1:
            raise ValueError(f"{value} is not allowed; allowed: an integer >= 1; a large number, 1000000, turns it off")
        return value

    @model_validator(mode="after")
    def _warmup_fits(self) -> TrainSpec:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmupEpochs {self.warmup_epochs} is more than epochs {self.epochs}")
        return self


class ServeSpec(Spec):
    """How to serve."""

    workers: int | None = Field(None, ge=1, le=256, description="Model workers. Default: the number of cores.")
    batch_size: int = Field(
        1, ge=1, le=1024, json_schema_extra={"unit": "pictures"}, description="Largest batch a worker takes at once."
    )
    max_batch_delay_ms: int = Field(
        5, ge=1, le=60_000, json_schema_extra={"unit": "ms"}, description="Longest wait for a batch to fill, in ms."
    )
    max_upload_mib: int = Field(
        16, ge=1, le=1024, json_schema_extra={"unit": "MiB"}, description="Largest request body, in MiB."
    )
    max_pixels: int = Field(
        50_000_000,
        ge=1,
        json_schema_extra={"unit": "pixels"},
        description="Largest picture answered, in pixels; larger ones get 400 with the limit.",
    )
    top_k: int = Field(
        5,
        ge=1,
        json_schema_extra={"unit": "classes"},
        description="Classes in an answer unless the request says; never more than exist.",
    )


class ClassifierSpec(Spec):
    """The desired end state: this model, trained like this, serving like this."""

    data: DataSpec = Field(description="Labelled pictures.")
    model: ModelSpec = Field(default_factory=ModelSpec, description="Network.")
    train: TrainSpec = Field(default_factory=TrainSpec, description="Training.")
    serve: ServeSpec = Field(default_factory=ServeSpec, description="Serving.")
    pod: PodSpec = Field(default_factory=lambda: PodSpec.model_validate({}), description="Pods on a cluster.")


class Metadata(Spec):
    """The part of Kubernetes' ObjectMeta that a user writes."""

    name: str = Field(
        pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$",
        max_length=54,
        description="DNS-1035 label, at most 54 letters so that `<name>-worker-N` stays a label too.",
    )
    namespace: str | None = Field(
        None, min_length=1, description="Kubernetes namespace; on a laptop there is none to choose."
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels, passed on to every object.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations.")


class Classifier(Spec):
    """A Classifier object, as in a file or on an API server."""

    api_version: Literal["trainserve.dev/v1alpha1"] = Field("trainserve.dev/v1alpha1", description="API version.")
    kind: Literal["Classifier"] = Field("Classifier", description="Kind.")
    metadata: Metadata = Field(description="Name and labels.")
    spec: ClassifierSpec = Field(description="Desired state.")
