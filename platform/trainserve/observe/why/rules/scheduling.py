"""Pods that no node takes, by what the scheduler says is missing; and volumes and objects that are not there.

The scheduler's sentence is "0/3 nodes are available: 1 node(s) had untolerated taint {...}, 2 Insufficient cpu. ...".
"""

from __future__ import annotations

from trainserve.kube import names
from trainserve.observe.why.conditions import both, cluster_says, either, kubectl, message, pod, reason
from trainserve.observe.why.rule import Rule

_FLAGS = {"cpu": "--cpu", "memory": "--memory", "ephemeral-storage": "ephemeral-storage (spec.pod.overlay)"}
_WAITING = reason(names.REASON_UNSCHEDULABLE)
_CONFIGURATION = either(reason("CreateContainerConfigError", "CreateContainerError", "FailedMount"))

RULES: tuple[Rule, ...] = (
    Rule(
        "claim-missing",
        both(
            either(_WAITING, reason("FailedMount", "FailedAttachVolume")),
            message(r'persistentvolumeclaim "(?P<claim>[^"]+)" (is )?not found'),
        ),
        lambda s: f"{pod(s)} waits for the claim {s.found['claim']}, which does not exist",
        lambda s: f"{kubectl(s, 'get pvc')} lists those that do: correct pvc://{s.found['claim']}, or create it",
    ),
    Rule(
        "claim-lost",
        both(_WAITING, message(r'persistentvolumeclaim "(?P<claim>[^"]+)" bound to non-existent persistentvolume')),
        lambda s: f"{pod(s)}: the volume of claim {s.found['claim']} is gone",
        lambda s: f"{kubectl(s, 'describe pvc ' + s.found['claim'])} names the volume; restore it or make a new claim",
    ),
    Rule(
        "claim-unbound",
        both(
            _WAITING,
            message(r"unbound immediate PersistentVolumeClaims|did not find available persistent volumes to bind"),
        ),
        lambda s: f"{pod(s)} waits for a claim that has no volume yet: {cluster_says(s)}",
        lambda s: (
            f"{kubectl(s, 'get pvc,events')} says why: no storage class that provisions, or no volume of that size"
        ),
    ),
    Rule(
        "volume-elsewhere",
        both(_WAITING, message(r"volume node affinity conflict|volume\(s\) .*zone")),
        lambda s: f"{pod(s)}: its volume lives on nodes that have no room or are not selected: {cluster_says(s)}",
        "drop the node selector, or use a claim that every node can mount (ReadWriteMany), or a bucket",
    ),
    Rule(
        "devices-claimed",
        both(_WAITING, message(r"cannot allocate all claims|resourceclaim|ResourceClaim|resource claim")),
        lambda s: f"{pod(s)} waits for devices that its resource claim asks for: {cluster_says(s)}",
        lambda s: f"{kubectl(s, 'get resourceclaims')} ; kubectl get resourceslices,deviceclasses shows what there is",
    ),
    Rule(
        "insufficient",
        both(
            _WAITING, either(message(r"Insufficient (?P<resource>[\w./-]+\w)"), message(r"needs (?P<lack>[^.]+ free)"))
        ),
        lambda s: (
            f"no node has room for {pod(s)}: {s.found['resource']} is missing: {cluster_says(s)}"
            if s.found.get("resource")
            else f"no node has room for {pod(s)}: {cluster_says(s)}"
        ),
        lambda s: (
            f"ask for less ({_FLAGS.get(s.found.get('resource', ''), '--gpus')}, or fewer --nodes), or wait: it is "
            "placed by itself when nodes are free"
        ),
    ),
    Rule(
        "taint",
        both(_WAITING, message(r"untolerated taint\(?s?\)? ?\{?(?P<taint>[^}:,]*)")),
        lambda s: (
            f"every node that fits {pod(s)} has a taint that it does not tolerate"
            f"{': ' if s.found['taint'] else ''}{s.found['taint']}: {cluster_says(s)}"
        ),
        lambda s: (
            f"--toleration {s.found['taint'].strip() or 'KEY'} if that job may run there (kubectl describe nodes shows "
            "them; a node that is not Ready has one too)"
        ),
    ),
    Rule(
        "selector",
        both(_WAITING, message(r"didn't match Pod's node (affinity|selector)|node\(s\) didn't match|topology spread")),
        lambda s: f"no node matches what {pod(s)} selects: {cluster_says(s)}",
        "correct --node-selector or spec.pod.affinity: kubectl get nodes --show-labels",
    ),
    Rule(
        "gang-not-placed",
        both(_WAITING, message(r"minCount|[Pp]od ?[Gg]roup|gang")),
        lambda s: f"not all pods of the gang fit at once, so none is started: {cluster_says(s)}",
        "use fewer --nodes, or wait: the gang is placed by itself when there is room for all of it",
    ),
    Rule(
        "scheduler-missing",
        message(r"No scheduler has looked at|is there one called"),
        lambda s: f"no scheduler looks at {pod(s)}: {cluster_says(s)}",
        "correct schedulerName, or leave --gang to auto",
    ),
    Rule(
        "unschedulable",
        _WAITING,
        lambda s: f"no node has room for {pod(s)}: {cluster_says(s)}",
        "correct what the message names: resources, node selector, tolerations or the claim",
    ),
    Rule(
        "volume-in-use",
        both(reason("FailedAttachVolume", "FailedMount"), message(r"Multi-Attach|already (exclusively )?attached")),
        lambda s: f"{pod(s)}: its volume is attached to another node, and only one may have it: {cluster_says(s)}",
        "end the pod that holds it, or use a ReadWriteMany claim or a bucket for data that many nodes read",
    ),
    Rule(
        "secret-missing",
        both(
            _CONFIGURATION,
            message(r'secret "(?P<name>[^"]+)" not found|references non-existent secret key: (?P<key>\S+)'),
        ),
        lambda s: f"{pod(s)} needs the Secret {s.found['name'] or 'key ' + s.found['key']}, which does not exist",
        lambda s: (
            f"{kubectl(s, 'create secret generic ' + (s.found['name'] or 'NAME') + ' ...')} , or correct --env-from"
        ),
    ),
    Rule(
        "configmap-missing",
        both(
            _CONFIGURATION,
            message(r'configmap "(?P<name>[^"]+)" not found|references non-existent config key: (?P<key>\S+)'),
        ),
        lambda s: f"{pod(s)} needs the ConfigMap {s.found['name'] or 'key ' + s.found['key']}, which does not exist",
        lambda s: (
            f"{kubectl(s, 'create configmap ' + (s.found['name'] or 'NAME') + ' ...')} , or take it out of the job"
        ),
    ),
    Rule(
        "root-refused",
        both(_CONFIGURATION, message(r"runAsNonRoot|run as root|non-numeric user")),
        lambda s: f"the image of {pod(s)} runs as root, which the job forbids: {cluster_says(s)}",
        "use an image with a numeric USER, or set runAsUser by spec.pod.overlay",
    ),
    Rule(
        "mount-failed",
        reason("FailedMount", "FailedAttachVolume", "FailedMapVolume"),
        lambda s: f"{pod(s)}: a volume cannot be mounted: {cluster_says(s)}",
        "correct the volume that the message names (a hostPath must exist on the node)",
    ),
    Rule(
        "sandbox",
        reason("FailedCreatePodSandBox", "NetworkNotReady", "FailedCreatePodContainer"),
        lambda s: f"the node cannot set up {pod(s)}: {cluster_says(s)}",
        "see that node: runtimeClass, its container runtime, its network plugin",
    ),
    Rule(
        "configuration-missing",
        either(reason("CreateContainerConfigError", "CreateContainerError"), reason("FailedValidation")),
        lambda s: f"{pod(s)} lacks what its container needs: {cluster_says(s)}",
        "create the object that the message names, or take the reference out of the template",
    ),
)
