"""What `platform node run` is told to be: the words of its flags, checked before the cluster hears of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from trainserve.errors import UserError
from trainserve.kube import names, quantity
from trainserve.kube.cluster import Manifest
from trainserve.launch import agent
from trainserve.local.metadata import dns_1123_subdomain, label_value, qualified_name
from trainserve.local.nodeobject import NodeShape
from trainserve.machine import cgroup

MOST_PODS = 110  # as a kubelet's default
MOST_GPUS = 1024  # each is held by its number
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_TAINT = re.compile(rf"(?P<key>[^=:\s]+)(=(?P<value>[^=:\s]*))?:(?P<effect>{'|'.join(_EFFECTS)})")
_RESOURCE = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_OWN_FLAGS = ("cpu", "memory")


def shape(
    name: str,
    *,
    cpu: str | None,
    memory: str | None,
    resources: Mapping[str, str],
    labels: Mapping[str, str],
    taints: Sequence[Manifest] = (),
) -> NodeShape:
    """What the node offers: what is given, else what this machine has. Raises UserError for what no node can be."""
    if wrong := dns_1123_subdomain(name):
        raise UserError(f"--name {name!r}: {wrong}", hint="leave it out to take this machine's name")
    for key, value in labels.items():
        if problem := qualified_name(key) or label_value(value):
            raise UserError(f"--label {key}={value}: {problem}", hint="such as --label zone=here")
    limits = [limit for limit in (cgroup.memory_limit(), cgroup.total_memory()) if limit is not None]
    gpus = agent.visible_gpus()
    offered = {
        "cpu": str(cgroup.cores()) if cpu is None else cpu,
        "memory": f"{min(limits, default=0) // 1024}Ki" if memory is None else memory,
        "pods": str(MOST_PODS),
        **({names.RESOURCE_GPU: str(gpus)} if gpus else {}),
    }
    for resource, amount in resources.items():
        if not _RESOURCE.fullmatch(resource):
            raise UserError(f"--resource: {resource!r} is no name of a resource", hint="such as nvidia.com/gpu")
        if resource in _OWN_FLAGS:
            raise UserError(f"--resource {resource}={amount}: has a flag of its own", hint=f"--{resource} {amount}")
    for resource, amount in {**offered, **resources}.items():
        _check_amount(resource, amount)
    return NodeShape(name, {**offered, **resources}, labels, tuple(taints))


def _check_amount(resource: str, given: str) -> None:
    """As the API server would, and that devices can be numbered."""
    flag = f"--{resource}" if resource in _OWN_FLAGS else f"--resource {resource}"
    try:
        amount = quantity.parse(given)
    except ValueError:
        raise UserError(f"{flag}: {given!r} is no amount of a resource", hint="such as 2, 500m or 64Gi") from None
    if amount < 0:
        raise UserError(f"{flag}: {given!r} is less than nothing", hint="such as 2, 500m or 64Gi")
    if (resource == "pods" or "/" in resource) and amount.denominator != 1:
        raise UserError(f"{flag}: {given!r} is not a whole number, and devices are not shared", hint="such as 2")
    if resource == names.RESOURCE_GPU and amount > MOST_GPUS:
        raise UserError(f"{flag}: {given!r} is more than the {MOST_GPUS} that are allowed", hint="such as 2")


def taint(text: str) -> Manifest:
    """`NAME[=VALUE]:EFFECT`, as `kubectl taint` takes it. Raises UserError."""
    match = _TAINT.fullmatch(text)
    if match is None:
        raise UserError(
            f"--taint: {text!r} is not NAME[=VALUE]:EFFECT",
            hint=f"EFFECT is {', '.join(_EFFECTS)}; such as trainserve.dev/local:NoSchedule",
        )
    if problem := qualified_name(match["key"]) or label_value(match["value"] or ""):
        raise UserError(f"--taint {text}: {problem}", hint="such as trainserve.dev/local:NoSchedule")
    found = {"key": match["key"], "effect": match["effect"]}
    return {**found, "value": match["value"]} if match["value"] else found


def pairs(flag: str, given: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` each. Raises UserError, also for a name that is given twice."""
    found: dict[str, str] = {}
    for each in given:
        key, separator, value = each.partition("=")
        if not separator or not key:
            raise UserError(f"{flag}: {each!r} is not NAME=VALUE", hint="platform node run --help")
        if found.setdefault(key, value) != value:
            raise UserError(f"{flag}: {key} is given as {found[key]!r} and as {value!r}", hint="say one of them")
    return found
