"""Strategic merge patch of a pod template, by Kubernetes' rules: lists of things with names are merged by the names.

https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/ and, which list has which
key, `x-kubernetes-patch-merge-key` in an API server's /openapi/v2. Pure.
"""

from __future__ import annotations

import copy
from typing import Any

from trainserve.kube.cluster import Manifest

PATCH = "$patch"
RETAIN = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"

_CONTAINER = {"ports": "containerPort", "env": "name", "volumeMounts": "mountPath", "volumeDevices": "devicePath"}
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
# Of each list that is merged, the field by which its items are known.
MERGE_KEYS: dict[tuple[str, ...], str] = {
    ("metadata", "ownerReferences"): "uid",
    ("spec", "volumes"): "name",
    ("spec", "imagePullSecrets"): "name",
    ("spec", "hostAliases"): "ip",
    ("spec", "topologySpreadConstraints"): "topologyKey",
    ("spec", "schedulingGates"): "name",
    ("spec", "resourceClaims"): "name",
    ("spec", "evictionResponders"): "name",
    ("spec", "volumes", "ephemeral", "volumeClaimTemplate", "metadata", "ownerReferences"): "uid",
    **{("spec", containers): "name" for containers in _CONTAINERS},
    **{("spec", containers, name): key for containers in _CONTAINERS for name, key in _CONTAINER.items()},
}
# Lists of plain values to which a patch adds.
MERGED_VALUES = {
    ("metadata", "finalizers"),
    ("spec", "volumes", "ephemeral", "volumeClaimTemplate", "metadata", "finalizers"),
}


class PatchError(ValueError):
    """A patch that cannot be merged. `path` is where in it, such as `spec.containers[0].name`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


def merged(template: Manifest, patch: Manifest) -> Manifest:
    """A copy of `template` with `patch` merged into it. Raises PatchError."""
    found = _map(copy.deepcopy(template), patch, (), "") or {}
    _check_names(found, (), "")
    return found


def _map(original: Manifest, patch: Manifest, kind: tuple[str, ...], where: str) -> Manifest | None:
    """None: it is taken out."""
    directive = patch.get(PATCH)
    if directive == "delete":
        return None
    if directive == "replace":
        return {key: _plain(value) for key, value in patch.items() if key != PATCH}
    if directive not in (None, "merge"):
        raise PatchError(_at(where, PATCH), f"{directive!r} is not allowed; allowed: merge, replace, delete")
    result = dict(original)
    if RETAIN in patch:
        kept = patch[RETAIN]
        if not isinstance(kept, list):
            raise PatchError(_at(where, RETAIN), "must be a list of the fields that stay")
        result = {key: value for key, value in result.items() if key in kept}
    for key, value in patch.items():
        if key.startswith("$"):
            _directive(result, key, value, where)
            continue
        at, here = _at(where, key), (*kind, key)
        before = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            inner = _map(before if isinstance(before, dict) else {}, value, here, at)
            if inner is None or (PATCH in value and not isinstance(before, dict)):  # nothing there to be changed
                result.pop(key, None)
            else:
                result[key] = inner
        elif isinstance(value, list) and here in MERGE_KEYS:
            result[key] = _items(before if isinstance(before, list) else [], value, here, at)
        elif isinstance(value, list) and here in MERGED_VALUES:
            result[key] = [*(before or []), *(each for each in value if each not in (before or []))]
        else:
            result[key] = _plain(value)
    return result


def _directive(result: Manifest, key: str, value: Any, where: str) -> None:
    if key in {PATCH, RETAIN}:
        return
    if key.startswith(_DELETE_FROM) and isinstance(value, list):
        name = key.removeprefix(_DELETE_FROM)
        before = result.get(name, [])
        if not isinstance(before, list):
            raise PatchError(_at(where, key), f"{name} is no list")
        result[name] = [each for each in before if each not in value]
        return
    if key.startswith(_ORDER):
        raise PatchError(_at(where, key), "is what kubectl writes for itself; leave it out")
    raise PatchError(_at(where, key), "is no directive of a strategic merge patch")


def _items(original: list[Any], patch: list[Any], kind: tuple[str, ...], where: str) -> list[Any]:
    """Of a list whose items are known by a field: theirs are changed, new ones are added."""
    key = MERGE_KEYS[kind]
    wanted: list[Manifest] = []
    replace = False
    items = list(original)
    for index, item in enumerate(patch):
        at = f"{where}[{index}]"
        if not isinstance(item, dict):
            raise PatchError(at, "must be an object")
        directive = item.get(PATCH)
        if directive == "replace":
            replace = True
            if any(name != PATCH for name in item):
                wanted.append({name: value for name, value in item.items() if name != PATCH})
        elif not _is_name(item.get(key)):
            raise _nameless(at, kind)
        elif directive == "delete":
            items = [each for each in items if each.get(key) != item[key]]
        elif directive is None:
            wanted.append(item)
        else:
            raise PatchError(_at(at, PATCH), f"{directive!r} is not allowed; allowed: delete, replace")
    if replace:
        return [_plain(item) for item in wanted]  # their names are looked at with all others
    changed: dict[Any, Any] = {each[key]: each for each in items}
    for index, item in enumerate(wanted):
        found = _map(changed.get(item[key], {}), item, kind, f"{where}[{index}]")
        changed[item[key]] = found if found is not None else {}
    return _ordered([each[key] for each in items], list(dict.fromkeys(item[key] for item in wanted)), changed)


def _check_names(value: Any, kind: tuple[str, ...], where: str) -> None:
    """What was put in whole has not been looked at: lists are lists, and their items have the field they are known by.

    Raises PatchError.
    """
    if kind in MERGE_KEYS and not isinstance(value, list):
        raise PatchError(where, f"{value!r:.60} is not allowed; allowed: a list of objects")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_names(inner, (*kind, key), _at(where, key))
    elif isinstance(value, list) and kind in MERGE_KEYS:
        for index, item in enumerate(value):
            at = f"{where}[{index}]"
            if not isinstance(item, dict):
                raise PatchError(at, "must be an object")
            if not _is_name(item.get(MERGE_KEYS[kind])):
                raise _nameless(at, kind)
            for key, inner in item.items():
                _check_names(inner, (*kind, key), _at(at, key))


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _nameless(where: str, kind: tuple[str, ...]) -> PatchError:
    return PatchError(_at(where, MERGE_KEYS[kind]), f"is required: it says which of {kind[-1]} is meant")


def _ordered(before: list[Any], patched: list[Any], items: dict[Any, Any]) -> list[Any]:
    """Patched items in the patch's order, the others in their own; new ones come as early as that allows."""
    place = {name: index for index, name in enumerate(before)}
    untouched = [name for name in before if name not in set(patched)]
    order: list[Any] = []
    for name in patched:
        while untouched and name in place and place[untouched[0]] < place[name]:
            order.append(untouched.pop(0))
        order.append(name)
    return [items[name] for name in (*order, *untouched)]


def _plain(value: Any) -> Any:
    """A value that nothing is merged with: without directives, nulls and what was to be taken out."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None and not key.startswith("$")}
    if isinstance(value, list):
        return [_plain(item) for item in value if not (isinstance(item, dict) and item.get(PATCH) == "delete")]
    return value


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
