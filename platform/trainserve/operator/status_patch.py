"""The JSON merge patch (RFC 7396) that turns one status into another."""

from __future__ import annotations

from typing import Any

from trainserve.kube.cluster import Manifest


def difference(old: Manifest, new: Manifest) -> Manifest:
    """What to send: changed members, null for those that go; lists are replaced as a whole."""
    patch: dict[str, Any] = dict.fromkeys(old.keys() - new.keys())
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif isinstance(value, dict) and isinstance(old[key], dict):
            if inner := difference(old[key], value):
                patch[key] = inner
        elif value != old[key]:
            patch[key] = value
    return patch
