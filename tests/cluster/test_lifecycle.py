"""A job's life as its user sees it with kubectl and nothing else."""

from __future__ import annotations

import json

from support.kubectl import Kubectl
from support.operating import Operator
from support.real import Team
from support.scenario import pytorchjob
from trainserve.kube import names


def flowers(namespace: str, **options: object) -> dict[str, object]:
    job = pytorchjob(workers=3, **options)  # type: ignore[arg-type]
    job["metadata"]["namespace"] = namespace
    return job


async def test_from_apply_over_running_to_succeeded(kubectl: Kubectl, operator: Operator, team: Team) -> None:
    kubectl.apply(flowers(team.namespace))
    kubectl("wait", "--for=condition=Running", "pytorchjob/flowers", "--timeout=30s")
    pods = await team.until_pods(4)
    assert [pod["metadata"]["name"] for pod in pods] == [
        "flowers-master-0",
        "flowers-worker-0",
        "flowers-worker-1",
        "flowers-worker-2",
    ]
    assert len(await team.children(names.SERVICE)) == 4
    head, row = kubectl("get", "pytorchjobs").splitlines()
    assert head.split()[:2] == ["NAME", "STATE"]
    assert row.split()[:2] == ["flowers", names.RUNNING]

    await team.end("flowers-master-0", 0)
    kubectl("wait", "--for=condition=Succeeded", "pytorchjob/flowers", "--timeout=30s")
    status = json.loads(kubectl("get", "pytorchjob", "flowers", "-o", "json"))["status"]
    assert [c["type"] for c in status["conditions"]] == [names.CREATED, names.RUNNING, names.SUCCEEDED]
    assert status["completionTime"] >= status["startTime"]

    kubectl("delete", "pytorchjob", "flowers", "--timeout=30s")
    await team.until_gone()
