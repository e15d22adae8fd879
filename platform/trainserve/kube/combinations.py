"""What can be wrong between the fields of a spec, for a cluster and for a laptop: all of it at once. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from trainserve.errors import SpecError
from trainserve.kube import names
from trainserve.kube.job import cluster_job
from trainserve.kube.overlay import OUR_LABELS
from trainserve.kube.placement import claim_name
from trainserve.spec import derive, location
from trainserve.spec.base import Spec
from trainserve.spec.classifier import Classifier
from trainserve.spec.location import Claim, Folder, HostPath, Url
from trainserve.spec.pod import is_label_value, is_qualified

_GPUS = "spec.pod.gpus"
_IMAGENET = "imagenet"
LARGEST_ANNOTATIONS = 256 * 1024  # bytes of an object's, names and all


def on_cluster(classifier: Classifier) -> list[SpecError]:
    """What is wrong for a cluster, each with its field and what to do."""
    found = [*_metadata(classifier), *_places(classifier), *_devices(classifier), *_environment(classifier)]
    if not found:  # there is a job to be looked at
        try:
            cluster_job(classifier, namespace=names.LOCAL_NAMESPACE)
        except SpecError as error:  # of the overlay
            found.append(error)
    return found


def on_this_machine(classifier: Classifier) -> list[SpecError]:
    """What only a cluster can do."""
    spec, found = classifier.spec, []
    if not isinstance(location.parse(spec.data.path), Folder):
        found.append(
            SpecError(
                f"spec.data.path: {spec.data.path} is seen by pods of a cluster only",
                hint="use --backend kubernetes, or a folder of this machine",
            )
        )
    if derive.is_elastic(spec):
        found.append(
            SpecError(
                f"spec.train.nodes: {spec.train.nodes}, a number that changes, needs a cluster",
                hint=f"use --backend kubernetes, or --nodes {derive.nodes(spec)[1]}",
            )
        )
    return found


def no_effect_here(classifier: Classifier) -> list[str]:
    """Of what somebody has set, in a sentence each, what means nothing on a laptop."""
    spec = classifier.spec
    fields = {
        **{f"spec.pod.{word}": getattr(spec.pod, name) for name, word in _words(spec.pod).items() if name != "env"},
        "spec.train.output": spec.train.output,
        "spec.data.digest": spec.data.digest,
        "spec.data.cache": spec.data.cache,
        "metadata.namespace": classifier.metadata.namespace,
    }
    processes = f", but for {spec.pod.gpus} processes a node" if spec.train.nproc_per_node is None else ""
    return [
        f"{field} has no effect on this machine{processes if field == _GPUS else ''}"
        for field, value in fields.items()
        if value not in (None, False, "auto", (), {})
    ]


def _words(model: Spec) -> dict[str, str]:
    return {name: info.alias or name for name, info in type(model).model_fields.items()}


def _metadata(classifier: Classifier) -> Iterator[SpecError]:
    metadata, ours = classifier.metadata, {*OUR_LABELS, names.ANNOTATION_VERSION}
    for field, words in (("labels", metadata.labels), ("annotations", metadata.annotations)):
        for key, value in words.items():
            where = f"metadata.{field}.{key:.80}"
            if key in ours:
                yield SpecError(f"{where}: is set by this platform, which finds its objects by it", hint="leave it out")
            elif not is_qualified(key):
                yield SpecError(f"{where}: is no name of one", hint="NAME or PREFIX/NAME: letters, digits, -, _ and .")
            elif field == "labels" and not is_label_value(value):
                hint = "letters, digits, -, _ and ., at most 63; annotations may have any"
                yield SpecError(f"{where}: {value!r:.80} is no value of a label", hint=hint)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.annotations.items())
    if size > LARGEST_ANNOTATIONS:
        yield SpecError(
            f"metadata.annotations: {size:,} bytes are too many; allowed: {LARGEST_ANNOTATIONS:,}",
            hint="put it into a ConfigMap: --env-from configmap/NAME",
        )


def _places(classifier: Classifier) -> Iterator[SpecError]:
    spec = classifier.spec
    data = location.parse(spec.data.path)
    if isinstance(data, Folder):
        yield SpecError(
            f"spec.data.path: {data.path} is a folder of this machine, which no pod sees",
            hint="say once where such folders are pushed to: platform context set NAME --data-store pvc://CLAIM or "
            "s3://BUCKET; or name pvc://CLAIM/path, hostpath:///path or a URL (--data)",
        )
    elif not isinstance(data, Url):
        # A folder that was pushed says its digest by its name.
        digest = None if location.folder_of(spec.data.digest or "") in spec.data.path else spec.data.digest
        for field, flag, value in (("cache", "--data-cache", spec.data.cache), ("digest", "--data-digest", digest)):
            if value is not None:
                yield SpecError(
                    f"spec.data.{field}: has no effect, for {spec.data.path} is not fetched",
                    hint=f"leave out {flag}, which is for URLs",
                )
    if isinstance(data, Url) and spec.data.cache and isinstance(location.parse(spec.data.cache), Folder):
        yield SpecError(
            f"spec.data.cache: {spec.data.cache} is a path of nobody in particular",
            hint=f"of the nodes it is --data-cache hostpath://{spec.data.cache}",
        )
    if spec.train.output is None:
        yield SpecError(
            "spec.train.output: is required on a cluster (--output)",
            hint="pvc://CLAIM[/path] or a bucket's URL; once for all runs: platform context set NAME --output",
        )
    if (weights := spec.model.weights) not in (None, _IMAGENET):
        try:
            seen = isinstance(location.parse(weights or ""), Claim | HostPath)
            problem = "" if seen else f"{weights} is nothing that a pod sees"
        except ValueError as error:
            problem = str(error)
        if problem:
            yield SpecError(
                f"spec.model.weights: {problem} (--weights)",
                hint="allowed are imagenet, pvc://CLAIM/path and hostpath:///path; another run's: its output's bundle",
            )


def _devices(classifier: Classifier) -> Iterator[SpecError]:
    spec = classifier.spec
    pod, processes = spec.pod, derive.processes_per_node(spec)
    templates = {claim_name(template): template for template in pod.resource_claim_templates or ()}
    for template in pod.resource_claim_templates or ():
        if (other := templates[claim_name(template)]) != template:
            yield SpecError(
                f"spec.pod.resourceClaimTemplates: {template} and {other} are both {claim_name(template)} in a pod",
                hint="call one of them otherwise: a dot counts as a dash there, and 63 letters count",
            )
    if pod.gpus is None:
        if pod.gpu_resource is not None:
            yield SpecError(
                f"spec.pod.gpuResource: {pod.gpu_resource} says what GPUs are called, but none are asked for",
                hint="add --gpus N",
            )
        return
    if pod.resource_claim_templates:
        yield SpecError(
            f"{_GPUS}: pods would get {pod.gpus} GPUs beside what spec.pod.resourceClaimTemplates claims for them",
            hint="leave one of them out; with claims --nproc-per-node says how many processes a node has",
        )
    if "/mig-" in (pod.gpu_resource or "") and pod.gpus > 1:
        yield SpecError(
            f"{_GPUS}: of {pod.gpus} MIG slices in one pod CUDA shows a process one only",
            hint=f"use --gpus 1 --nodes {pod.gpus * derive.nodes(spec)[1]}",
        )
    elif processes > pod.gpus:
        yield SpecError(
            f"spec.train.nprocPerNode: {processes} processes share {pod.gpus} GPUs, but NCCL wants one for each",
            hint=f"use --nproc-per-node {pod.gpus} or less",
        )
    if spec.train.device == "cpu":
        yield SpecError(
            f"spec.train.device: is cpu, but {_GPUS} asks for {pod.gpus} GPUs", hint="leave one of them out"
        )


def _environment(classifier: Classifier) -> Iterator[SpecError]:
    for name in classifier.spec.pod.env or {}:
        if name in names.OWN_ENV:
            yield SpecError(
                f"spec.pod.env: {name} is set by this platform, and means something else (--env)",
                hint="choose another name",
            )
