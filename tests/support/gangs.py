"""Kinds that the server in memory has only where a test gives them to it, and a scheduler that the test steps."""

from __future__ import annotations

from collections.abc import Mapping

from support.scenario import NAMESPACE, Scenario
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.kube.names import Kind
from trainserve.local import schema
from trainserve.local.resources import RESOURCES, Resource

GANG_KINDS = (names.POD_GROUP, names.VOLCANO_POD_GROUP, names.SCHEDULER_PLUGINS_POD_GROUP)


def serving(*kinds: Kind) -> Mapping[Kind, Resource]:
    """What a server in memory has by itself, and these."""
    return {**RESOURCES, **{kind: Resource(kind, schema.CUSTOM_RESOURCE, has_status=True) for kind in kinds}}


def groups(scenario: Scenario, kind: Kind = names.POD_GROUP) -> dict[str, Manifest]:
    found = scenario.run(scenario.cluster.list(kind, NAMESPACE)).items
    return {group["metadata"]["name"]: group["spec"] for group in found}


def refuse(scenario: Scenario, message: str, *only: str, reason: str = names.REASON_UNSCHEDULABLE) -> None:
    """The scheduler says that it has no node for pods that have none; for those named only, if any are."""
    for name, pod in scenario.pods().items():
        if "nodeName" not in pod["spec"] and (not only or name in only):
            condition = {"type": names.CONDITION_POD_SCHEDULED, "status": "False", "reason": reason, "message": message}
            patch = {"status": {"conditions": [condition]}}
            place = (names.POD, NAMESPACE, pod["metadata"]["name"])
            scenario.run(scenario.cluster.patch(*place, patch, subresource="status"))
