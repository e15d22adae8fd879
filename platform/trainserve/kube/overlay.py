"""`spec.pod.overlay`: a strategic merge patch of a job's pod template, and what it must leave as it is. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainserve.errors import SpecError
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.strategicmerge import PatchError, merged

FIELD = "spec.pod.overlay"
OUR_LABELS = (names.LABEL_CLASSIFIER, names.LABEL_GENERATION, *names.replica_labels("", "", 0), names.LABEL_JOB_ROLE)


def apply(overlay: Manifest | None, template: Manifest) -> Manifest:
    """`template` with `overlay` merged into it.

    Raises SpecError that lists every path in the overlay which cannot be merged, or fights what the platform sets.
    """
    if not overlay:
        return template
    try:
        result = merged(template, overlay)
    except PatchError as error:
        raise SpecError(f"{FIELD}.{error}", hint="it is a strategic merge patch of a pod template") from None
    problems = [*_about_template(overlay), *_about_pod(template, _mapping(result.get("spec")))]
    if problems:
        raise SpecError(
            "\n".join(f"{FIELD}.{problem}" for problem in problems),
            hint="an overlay is for what spec.pod has no field for: platform explain spec.pod",
        )
    return result


def _about_template(overlay: Manifest) -> Iterator[str]:
    yield from (f"{key}: no such field of a pod template" for key in overlay if key not in {"metadata", "spec"})
    parts = {
        "metadata": overlay.get("metadata"),
        "spec": overlay.get("spec"),
        **{f"metadata.{key}": _mapping(overlay.get("metadata")).get(key) for key in ("labels", "annotations")},
    }
    yield from (f"{at}: must be an object" for at, part in parts.items() if not isinstance(part, dict | None))
    metadata = _mapping(overlay.get("metadata"))
    yield from (f"metadata.{key}: has no effect" for key in metadata if key not in {"labels", "annotations"})
    yield from (
        f"metadata.{part}.{key}: {value!r:.60} is not allowed; allowed: a text, in quotes where it looks like a number"
        for part in ("labels", "annotations")
        for key, value in _mapping(metadata.get(part)).items()
        if not key.startswith("$") and not isinstance(value, str | None)
    )
    yield from (
        f"metadata.labels.{key}: is the controller's, which finds its pods by it"
        for key in _mapping(metadata.get("labels"))
        if key in OUR_LABELS
    )


def _about_pod(before: Manifest, spec: Manifest) -> Iterator[str]:
    if "restartPolicy" in spec:
        yield "spec.restartPolicy: is the controller's, which restarts the gang as a whole"
    if any(each.get("name") == names.INIT_CONTAINER for each in _objects(spec.get("initContainers"))):
        yield f"spec.initContainers[{names.INIT_CONTAINER}]: is the controller's"
    grace_s = spec.get("terminationGracePeriodSeconds", 0)
    if not isinstance(grace_s, int) or isinstance(grace_s, bool) or grace_s < 0:
        yield f"spec.terminationGracePeriodSeconds: {grace_s!r:.60} is not allowed; allowed: an integer >= 0"
    ours = before["spec"]["containers"][0]
    at = f"spec.containers[{names.CONTAINER}]"
    found = next((each for each in _objects(spec.get("containers")) if each.get("name") == names.CONTAINER), None)
    if found is None:
        yield f"{at}: is the one that trains, and has to be there"
        return
    yield from (
        f"{at}.{field}: is how training begins, and has to stay as it is"
        for field in ("command", "args")
        if found.get(field) != ours.get(field)
    )
    env = {each["name"]: each for each in _objects(found.get("env"))}
    own = {each["name"]: each for each in ours["env"]}
    yield from (
        f"{at}.env[{name}]: is set by the platform, and means something else"
        for name in names.OWN_ENV
        if env.get(name) != own.get(name)
    )
    mounts = {each["mountPath"]: each.get("name") for each in _objects(found.get("volumeMounts"))}
    yield from (
        f"{at}.volumeMounts[{each['mountPath']}]: has to be there, with volume {each['name']}"
        for each in ours["volumeMounts"]
        if mounts.get(each["mountPath"]) != each["name"]
    )
    volumes = {each["name"] for each in _objects(spec.get("volumes"))}
    yield from (
        f"spec.volumes[{each['name']}]: is mounted by {names.CONTAINER}, and has to be there"
        for each in before["spec"]["volumes"]
        if each["name"] not in volumes
    )


def _mapping(value: Any) -> Manifest:
    """A mapping; what is none is for the API server to refuse."""
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[Manifest]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
