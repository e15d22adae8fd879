"""Pods that the cluster took away. Nothing is wrong with the run; where it would come again, what to change.

Reasons: https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions and the kubelet's.
"""

from __future__ import annotations

from trainserve.kube import names
from trainserve.observe.why.conditions import When, both, either, pod, reason
from trainserve.observe.why.rule import Rule
from trainserve.observe.why.scene import Scene, search


def _disrupted(*reasons: str) -> When:
    return lambda scene: {} if scene.pod is not None and scene.pod.disruption in reasons else None


def _words(pattern: str) -> When:
    """In the cluster's words about the pod, or in the controller's about what is gone."""
    return lambda scene: search(pattern, f"{scene.message}\n{scene.sentence}")


def _node(scene: Scene) -> str:
    return scene.pod.node if scene.pod is not None and scene.pod.node else "its node"


def _message(scene: Scene) -> str:
    return scene.message or scene.sentence.partition(": ")[2] or "no more is known"


def _nothing_wrong(scene: Scene) -> str:
    if scene.evidence.condition(names.FAILED):
        return f"nothing is wrong with the run: {scene.resume()}"
    return f"nothing: the run starts again from its checkpoint by itself (platform status {scene.evidence.run})"


_EVICTED = either(reason("Evicted"), _words(r"\bEvicted: |low on resource: "))

RULES: tuple[Rule, ...] = (
    Rule(
        "evicted-volume-full",
        both(_EVICTED, _words(r'[Uu]sage of EmptyDir volume "(?P<volume>[^"]+)" exceeds the limit "(?P<limit>[^"]+)"')),
        lambda s: f"{pod(s)} was evicted: its volume {s.found['volume']} outgrew its limit of {s.found['limit']}",
        lambda s: (
            "raise spec.pod.sharedMemory"
            if s.found["volume"] == names.VOLUME_SHM
            else f"raise sizeLimit of volume {s.found['volume']} (spec.pod.overlay)"
        ),
    ),
    Rule(
        "evicted-disk",
        both(
            _EVICTED,
            _words(
                r"(?P<what>ephemeral[- ](local )?storage[^.]*|low on resource: (ephemeral-storage|nodefs|imagefs)[^.]*)"
            ),
        ),
        lambda s: f"{pod(s)} was evicted: {_node(s)} has no disk left for it ({s.found['what'].strip()})",
        "keep less on the node: spec.data.cache on a claim, or a request of ephemeral-storage by spec.pod.overlay",
    ),
    Rule(
        "evicted-memory",
        both(_EVICTED, _words(r"(?P<what>low on resource: memory[^.]*|memory pressure)")),
        lambda s: f"{pod(s)} was evicted: {_node(s)} had too little memory for all its pods",
        lambda s: (
            "set --memory to what a rank needs, so that the scheduler keeps it free"
            + (f" (now {s.pod.memory_limit})" if s.pod is not None and s.pod.memory_limit else "")
        ),
    ),
    Rule(
        "preempted",
        either(
            _disrupted("PreemptionByScheduler"),
            reason("Preempted", "Preempting"),
            _words(r"preempting to accommodate a higher priority pod|PreemptionByScheduler"),
        ),
        lambda s: f"{pod(s)} was preempted by pods of a higher priority: {_message(s)}",
        _nothing_wrong,
    ),
    Rule(
        "drained",
        either(_disrupted("EvictionByEvictionAPI"), _words(r"Eviction API: evicting|EvictionByEvictionAPI")),
        lambda s: f"{pod(s)} was evicted on request: {_node(s)} is drained ({_message(s)})",
        _nothing_wrong,
    ),
    Rule(
        "node-shut-down",
        either(
            _disrupted("TerminationByKubelet"),
            reason("Shutdown", "NodeShutdown", "Terminated"),
            _words(r"node shutdown|TerminationByKubelet"),
        ),
        lambda s: f"{_node(s)} shut down under {pod(s)}: {_message(s)}",
        _nothing_wrong,
    ),
    Rule(
        "node-lost",
        either(
            _disrupted("DeletionByTaintManager", "DeletionByPodGC"),
            reason(names.REASON_NODE_LOST),
            _words(r"DeletionByTaintManager|DeletionByPodGC|[Tt]aint manager: deleting|node is not found|NodeLost"),
        ),
        lambda s: f"{_node(s)}, which {pod(s)} ran on, was lost: {_message(s)}",
        lambda s: (
            f"{s.evidence.kubectl.split(' --namespace')[0] or 'kubectl'} get nodes shows which are Ready; "
            f"{_nothing_wrong(s)}"
        ),
    ),
    Rule(
        "evicted",
        _EVICTED,
        lambda s: f"{pod(s)} was evicted from {_node(s)}: {_message(s)}",
        _nothing_wrong,
    ),
    Rule(
        "pod-deleted",
        _words(r"its pod \S+ was deleted|its pod is gone"),
        lambda s: f"the pod of {pod(s)} was deleted by somebody",
        _nothing_wrong,
    ),
    Rule(
        "node-refused",
        either(
            reason("NodeAffinity", "UnexpectedAdmissionError"), lambda s: {} if s.reason.startswith("OutOf") else None
        ),
        lambda s: f"{_node(s)} refused {pod(s)} although it was placed there ({s.reason}): {_message(s)}",
        _nothing_wrong,
    ),
)
