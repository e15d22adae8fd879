"""Values that follow from a spec, each computed in one place, with errors in words and numbers."""

from __future__ import annotations

import math

from trainserve.errors import SpecError
from trainserve.spec.classifier import Classifier, ClassifierSpec, ModelSpec, node_range

SMALL_PICTURE_PX = 64
IMAGENET_PX = 224
LARGEST_BATCH = 1_000_000  # that is proposed to anybody


def nodes(spec: ClassifierSpec) -> tuple[int, int]:
    """Fewest and most nodes: the same number unless the run is elastic."""
    return node_range(spec.train.nodes)


def is_elastic(spec: ClassifierSpec) -> bool:
    """Whether the number of nodes may change while the run goes on, also where it is a range of one number."""
    return isinstance(spec.train.nodes, str)


def processes_per_node(spec: ClassifierSpec) -> int:
    """Training processes on each node: as given, else one a GPU, else one."""
    return spec.train.nproc_per_node or spec.pod.gpus or 1


def world_size(spec: ClassifierSpec) -> int:
    """Number of training processes over all nodes; of an elastic run the most."""
    return nodes(spec)[1] * processes_per_node(spec)


def per_process_batch(spec: ClassifierSpec) -> int:
    """Pictures a step of one process; of an elastic run the fewest.

    Raises SpecError when the global batch does not divide evenly, for any number of nodes that the run may have.
    """
    each, (low, high), batch_size = processes_per_node(spec), nodes(spec), spec.train.batch_size
    for count in range(low, high + 1):
        if batch_size % (count * each):
            common = math.lcm(*(number * each for number in range(low, high + 1)))
            below = batch_size // common * common
            fitting = " or ".join(str(size) for size in (below, below + common) if size)
            hint = f"use --batch-size {fitting}" if common <= LARGEST_BATCH else "choose a narrower range of nodes"
            elastic = f" (elastic: {spec.train.nodes})" if is_elastic(spec) else ""
            raise SpecError(
                f"spec.train.batchSize: global batch {batch_size} is not a multiple of "
                f"{count} nodes x {each} processes = {count * each}{elastic}",
                hint=hint,
            )
    return batch_size // (high * each)


def image_size(model: ModelSpec, median_short_side_px: int) -> int:
    """Side in pixels of what the network sees, from the spec or from the pictures."""
    if model.image_size is not None:
        return model.image_size
    if median_short_side_px > SMALL_PICTURE_PX:
        return IMAGENET_PX
    return max(16, -(-median_short_side_px // 8) * 8)


def stem(model: ModelSpec, image_size_px: int) -> str:
    """`imagenet` or `small`."""
    if model.stem != "auto":
        return model.stem
    return "small" if image_size_px <= SMALL_PICTURE_PX else "imagenet"


def steps_per_epoch(pictures: int, batch_size: int) -> int:
    """Whole global batches in an epoch; the rest is left out. Raises SpecError when there is none."""
    if pictures < batch_size:
        raise SpecError(
            f"spec.train.batchSize: global batch {batch_size} is more than the {pictures} training pictures",
            hint=f"use --batch-size {pictures} or less",
        )
    return pictures // batch_size


def check_pictures(classifier: Classifier, pictures: int, median_short_side_px: int, processes: int) -> None:
    """Everything that can be wrong between a spec and so many training pictures of this size. Raises SpecError.

    `processes` are those that train: an elastic job may have others than its spec says.
    """
    spec = classifier.spec
    steps_per_epoch(pictures, spec.train.batch_size)
    size = image_size(spec.model, median_short_side_px)
    last_map = size // (8 if stem(spec.model, size) == "small" else 32)  # side of what the last layers see
    if spec.train.batch_size // processes == 1 and last_map <= 1:
        raise SpecError(
            f"spec.train.batchSize: one picture a process ({spec.train.batch_size} over {processes}) is too few for "
            f"batch-norm at {size} px",
            hint=f"use --batch-size {2 * processes} or more",
        )


def problems(classifier: Classifier) -> list[SpecError]:
    """Everything that can be wrong between fields, before anything starts."""
    found = []
    try:
        per_process_batch(classifier.spec)
    except SpecError as error:
        found.append(error)
    train = classifier.spec.train
    if train.amp == "fp16" and train.device == "cpu":
        found.append(SpecError("spec.train.amp: fp16 needs a GPU, but spec.train.device is cpu", hint="use --amp bf16"))
    return found
