"""What can be wrong between the fields of a spec, for a cluster and for a laptop: all of it at once. Pure."""

from __future__ import annotations

from trainserve.errors import SpecError
from trainserve.kube import names
from trainserve.spec import derive, location
from trainserve.spec.base import Spec
from trainserve.spec.classifier import Classifier
from trainserve.spec.location import Claim, Folder, HostPath, Url

_GPUS = "spec.pod.gpus"


def check(classifier: Classifier) -> None:
    """Raises SpecError that lists every mistake with its field and what to do."""
    problems = [*_places(classifier), *_devices(classifier), *_names(classifier)]
    if problems:
        raise SpecError("\n".join(problems), hint="platform explain spec.pod and spec.train say what each field means")


def check_local(classifier: Classifier) -> None:
    """Raises SpecError that lists everything which only a cluster can do."""
    spec, problems = classifier.spec, []
    if not isinstance(location.parse(spec.data.path), Folder):
        problems.append(
            f"spec.data.path: {spec.data.path} is seen by pods of a cluster only: use --backend kubernetes, or a folder"
        )
    if derive.is_elastic(spec):
        problems.append(
            f"spec.train.nodes: {spec.train.nodes}, a number that changes, needs a cluster: use --backend kubernetes, "
            f"or --nodes {derive.nodes(spec)[1]}"
        )
    if problems:
        raise SpecError("\n".join(problems), hint="platform context use NAME chooses a cluster for all that follows")


def no_effect_locally(classifier: Classifier) -> list[str]:
    """The fields that somebody has set and that mean nothing on a laptop."""
    spec = classifier.spec
    fields = {
        **{f"spec.pod.{word}": getattr(spec.pod, name) for name, word in _words(spec.pod).items() if name != "env"},
        "spec.train.output": spec.train.output,
        "spec.data.digest": spec.data.digest,
        "spec.data.cache": spec.data.cache,
        "metadata.namespace": classifier.metadata.namespace,
    }
    return [
        f"{field} has no effect on this machine"
        + (
            f", but for {spec.pod.gpus} processes a node"
            if field == _GPUS and spec.train.nproc_per_node is None
            else ""
        )
        for field, value in fields.items()
        if value not in (None, False, "auto", (), {})
    ]


def _words(model: Spec) -> dict[str, str]:
    return {name: info.alias or name for name, info in type(model).model_fields.items()}


def _places(classifier: Classifier) -> list[str]:
    spec, found = classifier.spec, []
    data = location.parse(spec.data.path)
    if isinstance(data, Folder):
        found.append(
            f"spec.data.path: {data.path} is a folder of this machine, which no pod sees: push it with "
            "`platform data push`, or name pvc://CLAIM/path, hostpath:///path or a URL (--data)"
        )
    if not isinstance(data, Url):
        if spec.data.cache is not None:
            found.append("spec.data.cache: only data from a URL is fetched into a cache (--data-cache)")
    elif spec.data.cache and isinstance(location.parse(spec.data.cache), Folder):
        found.append(f"spec.data.cache: {spec.data.cache} is no volume: hostpath://{spec.data.cache} is one")
    if spec.train.output is None:
        found.append(
            "spec.train.output: is required on a cluster: pvc://CLAIM[/path] or a bucket's URL "
            "(--output, or platform context set NAME --output)"
        )
    weights = spec.model.weights
    if weights is not None and weights != "imagenet" and not isinstance(location.parse(weights), Claim | HostPath):
        found.append(
            f"spec.model.weights: {weights} is not seen by any pod: allowed are imagenet, pvc://CLAIM/path and "
            "hostpath:///path (--weights)"
        )
    return found


def _devices(classifier: Classifier) -> list[str]:
    spec, found = classifier.spec, []
    pod, processes = spec.pod, derive.processes_per_node(spec)
    if pod.gpus is None:
        if pod.gpu_resource is not None:
            found.append("spec.pod.gpuResource: says what GPUs are called, but none are asked for: add --gpus N")
    else:
        if pod.resource_claim_templates:
            found.append(
                "spec.pod.gpus: pods would get these beside what spec.pod.resourceClaimTemplates claims: leave one of "
                "them out; with claims --nproc-per-node says how many processes there are"
            )
        if "/mig-" in (pod.gpu_resource or "") and pod.gpus > 1:
            found.append(
                f"spec.pod.gpus: {pod.gpus} MIG slices in one pod, of which CUDA shows one to a process only: use "
                f"--gpus 1 and --nodes {pod.gpus * derive.nodes(spec)[1]}"
            )
        elif processes > pod.gpus:
            found.append(
                f"spec.train.nprocPerNode: {processes} processes share {pod.gpus} GPUs, but NCCL wants one for each: "
                f"use --nproc-per-node {pod.gpus} or less"
            )
        if spec.train.device == "cpu":
            found.append("spec.train.device: is cpu, but spec.pod.gpus asks for GPUs: leave one of them out")
    return found


def _names(classifier: Classifier) -> list[str]:
    env = classifier.spec.pod.env or {}
    return [
        f"spec.pod.env: {name} is set by this platform, and means something else (--env)"
        for name in env
        if name in names.OWN_ENV
    ]
