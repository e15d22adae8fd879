"""What happens to an object between a request and the store: decoding, defaults, rules, metadata. Pure."""

from __future__ import annotations

from typing import Any, Literal

from trainserve.kube.cluster import BadRequest, Conflict, Invalid, Manifest
from trainserve.kube.names import Kind
from trainserve.local import metadata, schema
from trainserve.local.patch import merge, without_nulls
from trainserve.local.resources import Resource
from trainserve.local.store import copy_json

# Set by the server alone; what a client says of them is passed over.
SERVER_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def created(resource: Resource, namespace: str, manifest: Manifest, uid: str, created_at: str) -> Manifest:
    """The object to store for a create. Raises BadRequest for what is no such object, Invalid for a broken rule."""
    new: Manifest = without_nulls(copy_json(manifest))
    _check_identity(resource.kind, namespace, new, name=None)
    if wrong := _decoding_problems(resource, new):
        raise BadRequest(f"strict decoding error: {wrong}")
    given = new.get("metadata", {})
    new["metadata"] = {
        **{key: value for key, value in given.items() if key not in SERVER_METADATA and value not in ({}, [])},
        "name": given.get("name") or _generated_name(given.get("generateName", ""), uid),
        "namespace": namespace,
        "uid": uid,
        "creationTimestamp": created_at,
    }
    if resource.has_generation:
        new["metadata"]["generation"] = 1
    if resource.has_status:
        new.pop("status", None)
        if resource.initial_status is not None:
            new["status"] = copy_json(resource.initial_status)
    new = resource.default(new)
    _check_rules(resource, new, resource.problems(new))
    return new


def patched(resource: Resource, old: Manifest, patch: Manifest, subresource: Literal["", "status"]) -> Manifest:
    """The object to store for a merge patch; equal to `old` where it changes nothing.

    Raises BadRequest for a patch of another object, Conflict for a failed precondition, Invalid for what the result
    may not be, unknown fields included.
    """
    patch = copy_json(patch)
    name, namespace = old["metadata"]["name"], old["metadata"]["namespace"]
    _check_identity(resource.kind, namespace, patch, name=name)
    _check_preconditions(resource.kind, old, patch.get("metadata") or {})
    merged = merge(old, patch)
    if subresource == "status":
        new = {**old, "status": without_nulls(merged.get("status", {}))}
    else:
        new = {**without_nulls(merged), "metadata": _merged_metadata(old["metadata"], merged.get("metadata"))}
        if resource.has_status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
    if wrong := _decoding_problems(resource, new):
        raise Invalid(f'{resource.kind} "{name}" is invalid: patch: strict decoding error: {wrong}')
    if subresource == "":
        new = resource.default(new)
    problems = resource.problems(new)
    if not problems:
        problems = resource.update_problems(old, new) + metadata.update_problems(old["metadata"], new["metadata"])
    _check_rules(resource, new, problems)
    if resource.has_generation and _desired(new) != _desired(old):
        new["metadata"] = {**new["metadata"], "generation": old["metadata"]["generation"] + 1}
    return new


def title(kind: Kind, name: str) -> str:
    """`pods "a"`, `pytorchjobs.kubeflow.org "a"`: how an API server speaks of an object."""
    return f'{kind.plural}{"." if kind.group else ""}{kind.group} "{name}"'


def _decoding_problems(resource: Resource, manifest: Manifest) -> str:
    unknown = [f'unknown field "{path}"' for path in resource.unknown_fields(manifest)]
    return ", ".join(dict.fromkeys(schema.problems(manifest, resource.fields) + unknown))


def _check_rules(resource: Resource, new: Manifest, problems: list[str]) -> None:
    name, namespace = new["metadata"]["name"], new["metadata"]["namespace"]
    found = []
    if wrong := metadata.dns_1123_label(namespace):
        found.append(f'metadata.namespace: Invalid value: "{namespace}": {wrong}')
    if not name:
        found.append("metadata.name: Required value: name or generateName is required")
    elif wrong := resource.name_problem(name):
        found.append(f'metadata.name: Invalid value: "{name}": {wrong}')
    found += problems + metadata.problems(new["metadata"])
    if found:
        raise Invalid(f'{resource.kind} "{name}" is invalid: {"; ".join(dict.fromkeys(found))}')


def _generated_name(prefix: str, uid: str) -> str:
    """Five characters of the object's own uid after the prefix, where there is one."""
    return prefix and prefix + "".join(character for character in uid.lower() if character.isalnum())[-5:]


def _desired(manifest: Manifest) -> Manifest:
    return {key: value for key, value in manifest.items() if key not in ("metadata", "status")}


def _merged_metadata(old: Manifest, merged: Any) -> Manifest:
    kept = dict(merged) if isinstance(merged, dict) else {}
    for key in SERVER_METADATA:
        kept.pop(key, None)
        if key in old:
            kept[key] = old[key]
    return {key: value for key, value in without_nulls(kept).items() if value not in ({}, [])}


def _check_identity(kind: Kind, namespace: str, given: Any, *, name: str | None) -> None:
    """The body must be such an object, for this place. With `name` it is a patch, which may leave these out."""
    if not isinstance(given, dict):
        raise BadRequest(f"the body must be an object, not {given!r}")
    meta = given.get("metadata")
    if meta is not None and not isinstance(meta, dict):
        raise BadRequest(f"metadata: {meta!r} is not an object")
    for field, right in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        found = given.get(field, right if name is not None else None)
        if found != right:
            raise BadRequest(f"{field}: {found!r} in the body is not the expected {right!r}")
    meta = meta or {}
    if meta.get("namespace", namespace) != namespace:
        raise BadRequest(
            f"metadata.namespace: {meta['namespace']!r} in the body is not the namespace of the request, {namespace!r}"
        )
    if name is not None and meta.get("name", name) != name:
        raise BadRequest(f"metadata.name: {meta['name']!r} in the body is not the name of the request, {name!r}")
    if name is None and meta.get("resourceVersion"):
        raise BadRequest("metadata.resourceVersion: must not be set on an object to be created")


def _check_preconditions(kind: Kind, old: Manifest, given: Manifest) -> None:
    meta = old["metadata"]
    for field in ("uid", "resourceVersion"):
        if given.get(field) not in (None, "", meta[field]):
            raise Conflict(
                f"Operation cannot be fulfilled on {title(kind, meta['name'])}: metadata.{field} is "
                f"{meta[field]}, not {given[field]}: the object has been modified; read it again and retry"
            )
