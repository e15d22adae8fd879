"""A node that is gone, with all that a real cluster does then."""

from __future__ import annotations

from collections.abc import Callable

from support.kubectl import Kubectl
from support.kwok import LABEL, on_own_nodes
from support.operating import Operator
from support.real import Team, condition_of
from support.scenario import pytorchjob
from trainserve.kube import names


async def test_the_gang_of_a_lost_node_starts_again_elsewhere_free_of_charge(
    kubectl: Kubectl, operator: Operator, team: Team, nodes: Callable[..., list[str]]
) -> None:
    nodes(5, {"cpu": "8"})
    job = pytorchjob(workers=3, backoffLimit=0)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        spec = replica["template"]["spec"]
        spec["containers"][0]["resources"] = {"requests": {"cpu": "5"}}  # one a node
        replica["template"]["spec"] = on_own_nodes(spec, team.namespace)
    await team.create(job)
    pods = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in await team.until_pods(4)}
    lost = pods["flowers-worker-1"]

    # KWOK leaves it alone: it answers nothing any more, and no pod of it is ever reported as ended. Kubernetes notices
    # after 40 s without a sign of life; the test says so at once. The taint is what an administrator sets.
    kubectl("label", "node", lost, f"{LABEL}-")
    silent = '{"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}}'
    kubectl("patch", "node", lost, "--subresource=status", "--patch", silent)
    kubectl("taint", "node", lost, "node.kubernetes.io/out-of-service=gone:NoExecute")

    after = await team.until_pods(4, generation=2, timeout_s=90)
    assert lost not in {pod["spec"]["nodeName"] for pod in after}
    found = await team.until_state(names.RUNNING)
    assert found["status"].get("restarts", 0) == 0
    assert condition_of(found, names.FAILED) == {}
