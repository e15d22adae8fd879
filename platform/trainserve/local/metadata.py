"""The rules for names, labels, annotations and owners that hold for every kind.

https://kubernetes.io/docs/concepts/overview/working-with-objects/ (names, labels, annotations, finalizers). Each check
returns its complaints as `path: sentence`.
"""

from __future__ import annotations

import re
from typing import Any

_LABEL_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_KEY_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
MAX_LABEL = 63
MAX_SUBDOMAIN = 253
MAX_ANNOTATIONS_BYTES = 256 * 1024


def dns_1123_label(name: str) -> str | None:
    """What is wrong with `name`, or None."""
    if len(name) > MAX_LABEL:
        return f"must be no more than {MAX_LABEL} characters"
    if not _LABEL_1123.fullmatch(name):
        return "must be small letters, digits and -, from a letter or digit to a letter or digit (a DNS-1123 label)"
    return None


def dns_1035_label(name: str) -> str | None:
    """What is wrong with `name`, or None."""
    if len(name) > MAX_LABEL:
        return f"must be no more than {MAX_LABEL} characters"
    if not _LABEL_1035.fullmatch(name):
        return "must be small letters, digits and -, from a letter to a letter or digit (a DNS-1035 label)"
    return None


def dns_1123_subdomain(name: str) -> str | None:
    """What is wrong with `name`, or None."""
    if len(name) > MAX_SUBDOMAIN:
        return f"must be no more than {MAX_SUBDOMAIN} characters"
    if not all(_LABEL_1123.fullmatch(part) for part in name.split(".")):
        return "must be small letters, digits, - and ., each part from a letter or digit to one (a DNS-1123 subdomain)"
    return None


def label_value(value: str) -> str | None:
    """What is wrong with a label's value, or None."""
    if len(value) > MAX_LABEL:
        return f"must be no more than {MAX_LABEL} characters"
    if not _LABEL_VALUE.fullmatch(value):
        return "must be empty or letters, digits, -, _ and ., from a letter or digit to a letter or digit"
    return None


def qualified_name(key: str) -> str | None:
    """What is wrong with the key of a label, an annotation or a finalizer, or None."""
    prefix, slash, name = key.rpartition("/")
    if slash and (wrong := dns_1123_subdomain(prefix)):
        return f"prefix {wrong}"
    if len(name) > MAX_LABEL:
        return f"name part must be no more than {MAX_LABEL} characters"
    if not _KEY_NAME.fullmatch(name):
        return "name part must be letters, digits, -, _ and ., from a letter or digit to a letter or digit"
    return None


def problems(metadata: dict[str, Any]) -> list[str]:
    """Labels, annotations, finalizers and owners of one object; its fields have the right types."""
    found: list[str] = []
    for key, value in metadata.get("labels", {}).items():
        if wrong := qualified_name(key):
            found.append(f'metadata.labels: Invalid value: "{key}": {wrong}')
        if wrong := label_value(value):
            found.append(f'metadata.labels: Invalid value: "{value}": {wrong}')
    annotations = metadata.get("annotations", {})
    found += [
        f'metadata.annotations: Invalid value: "{key}": {wrong}'
        for key in annotations
        if (wrong := qualified_name(key.lower()))
    ]
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > MAX_ANNOTATIONS_BYTES:
        found.append(f"metadata.annotations: Too long: may not be more than {MAX_ANNOTATIONS_BYTES} bytes")
    found += [
        f'metadata.finalizers: Invalid value: "{finalizer}": {wrong}'
        for finalizer in metadata.get("finalizers", [])
        if (wrong := qualified_name(finalizer))
    ]
    owners = metadata.get("ownerReferences", [])
    for index, owner in enumerate(owners):
        found += [
            f"metadata.ownerReferences[{index}].{field}: Required value: must not be empty"
            for field in ("apiVersion", "kind", "name", "uid")
            if not owner.get(field)
        ]
    if sum(1 for owner in owners if owner.get("controller")) > 1:
        found.append("metadata.ownerReferences: Invalid value: only one reference can have controller set to true")
    return found


def update_problems(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What may not change in metadata."""
    if "deletionTimestamp" not in old:
        return []
    added = set(new.get("finalizers", [])) - set(old.get("finalizers", []))
    return [
        f'metadata.finalizers: Forbidden: no new finalizers can be added while the object is being deleted: "{name}"'
        for name in sorted(added)
    ]
