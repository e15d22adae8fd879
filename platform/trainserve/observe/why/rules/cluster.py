"""What a cluster takes away or cannot give."""

from __future__ import annotations

from trainserve.errors import EXIT_PEER_LOST
from trainserve.kube import names
from trainserve.observe.why.conditions import code, reason
from trainserve.observe.why.rule import Rule
from trainserve.observe.why.scene import search

RULES: tuple[Rule, ...] = (
    Rule(
        "node-lost",
        reason("Evicted", "Preempted", "Preempting", "Shutdown", "NodeShutdown", "Terminated", names.REASON_NODE_LOST),
        lambda s: (
            f"what {s.pod.title if s.pod else s.who} ran on was taken away ({s.reason}): "
            f"{s.message or 'no more is known'}"
        ),
        lambda s: f"nothing is wrong with the run: {s.resume()}",
    ),
    Rule(
        "image",
        reason("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
        lambda s: f"the image of {s.pod.title if s.pod else s.who} cannot be pulled: {s.message or s.reason}",
        lambda s: (
            "correct `image`, or name the registry's secret in imagePullSecrets"
            if not search(r"(?i)unauthorized|denied|authentication", s.message)
            else "name a secret that may read the registry in imagePullSecrets"
        ),
    ),
    Rule(
        "configuration-missing",
        reason("CreateContainerConfigError", "CreateContainerError"),
        lambda s: f"{s.pod.title if s.pod else s.who} lacks what its container needs: {s.message}",
        "create the object that the message names, or take the reference out of the template",
    ),
    Rule(
        "unschedulable",
        reason(names.REASON_UNSCHEDULABLE),
        lambda s: f"no node has room for {s.pod.title if s.pod else s.who}: {s.message}",
        "lower resources.requests, correct the node selector or the claim that the message names",
    ),
    Rule(
        "peer-lost",
        code(EXIT_PEER_LOST),
        lambda s: f"{s.who} lost contact with another rank, and none said why",
        lambda s: f"platform logs {s.evidence.run} has what each rank wrote last; then {s.resume()}",
    ),
)
