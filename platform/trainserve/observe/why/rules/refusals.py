"""Pods that the API server refuses to create: the words of its admission plugins."""

from __future__ import annotations

from trainserve.kube import names
from trainserve.observe.why.conditions import When, both, kubectl
from trainserve.observe.why.rule import Rule
from trainserve.observe.why.scene import Scene, search


def _refused(scene: Scene) -> dict[str, str] | None:
    """Whether the job says that a child of it was not created."""
    if scene.pod is not None:  # whose kubelet has reasons of the same beginning
        return None
    return {} if scene.reason == names.REASON_QUOTA or scene.reason.startswith(names.REASON_FAILED_CREATE) else None


def _words(pattern: str) -> When:
    return both(_refused, lambda scene: search(pattern, scene.message))


def _message(scene: Scene) -> str:
    """Without what comes before the admission plugin's own words."""
    text = " ".join(scene.message.split())
    own = text.partition(" is forbidden: ")[2] or text
    return own if len(own) <= 300 else f"{own[:299]}…"


RULES: tuple[Rule, ...] = (
    Rule(
        "quota",
        _words(
            r"exceeded quota: (?P<quota>[^,]+), requested: (?P<wanted>.+?), used: (?P<used>.+?), limited: (?P<limit>.+)"
        ),
        lambda s: (
            f"the quota {s.found['quota']} has no room: it allows {s.found['limit']}, {s.found['used']} is used, a pod "
            f"wants {s.found['wanted']} more"
        ),
        lambda s: (
            f"wait, the job goes on by itself when there is room ({kubectl(s, 'describe quota ' + s.found['quota'])}); "
            "or use fewer --nodes, or ask for a larger quota"
        ),
    ),
    Rule(
        "quota-needs-limits",
        _words(r"failed quota: (?P<quota>[^:]+): must specify (?P<what>.+)"),
        lambda s: f"the quota {s.found['quota']} wants every pod to say {s.found['what']}",
        "train with --cpu and --memory",
    ),
    Rule(
        "pod-security",
        _words(r'violates PodSecurity "(?P<level>[^"]+)": (?P<what>.+)'),
        lambda s: (
            f"the namespace enforces Pod Security {s.found['level']}, and the pods break it: {s.found['what'][:300]}"
        ),
        "take out of the job what it names (host network, host paths, a privileged overlay)",
    ),
    Rule(
        "limit-range",
        _words(r"(?P<what>(maximum|minimum) [\w./-]+ usage per (Container|Pod) is .+|.* limit to request ratio .+)"),
        lambda s: f"a LimitRange of the namespace refuses the pods: {s.found['what'][:300]}",
        lambda s: f"correct --cpu or --memory: {kubectl(s, 'describe limitrange')}",
    ),
    Rule(
        "service-account-missing",
        _words(r'error looking up service account \S+: serviceaccount "(?P<name>[^"]+)" not found'),
        lambda s: f"the service account {s.found['name']} does not exist",
        lambda s: f"{kubectl(s, 'create serviceaccount ' + s.found['name'])} , or correct --service-account",
    ),
    Rule(
        "priority-class-missing",
        _words(r"no PriorityClass with name (?P<name>\S+) was found"),
        lambda s: f"the priority class {s.found['name']} does not exist",
        "correct --priority-class: kubectl get priorityclasses",
    ),
    Rule(
        "runtime-class-missing",
        _words(r'RuntimeClass "?(?P<name>[^"\s]+)"? not found'),
        lambda s: f"the runtime class {s.found['name']} does not exist",
        "correct --runtime-class: kubectl get runtimeclasses",
    ),
    Rule(
        "namespace-terminating",
        _words(r"because it is being terminated"),
        "the namespace is being deleted: nothing new is created in it",
        "train in another --namespace",
    ),
    Rule(
        "admission-webhook",
        _words(
            r'admission webhook "(?P<name>[^"]+)" denied the request(: (?P<how>.+))?|failed calling webhook '
            r'"(?P<down>[^"]+)": (?P<why>.+)'
        ),
        lambda s: (
            f"the admission webhook {s.found['name']} refuses the pods: {s.found['how'] or 'it says no more'}"
            if s.found["name"]
            else f"the admission webhook {s.found['down']} does not answer: {s.found['why'][:200]}"
        ),
        lambda s: (
            "change what it refuses, or ask who runs it"
            if s.found["name"]
            else "ask who runs it; the job goes on by itself when it answers"
        ),
    ),
    Rule(
        "admission-policy",
        _words(r"ValidatingAdmissionPolicy '(?P<name>[^']+)'.* denied request: (?P<how>.+)"),
        lambda s: f"the admission policy {s.found['name']} refuses the pods: {s.found['how'][:300]}",
        "change what it refuses, or ask who keeps it",
    ),
    Rule(
        "name-taken",
        _words(r"Error creating (?P<kind>\w+) (?P<name>\S+): there is one of this name that does not belong"),
        lambda s: f"the {s.found['kind']} {s.found['name']} exists and belongs to somebody else",
        "train under another --name, or remove it",
    ),
    Rule(
        "may-not-create",
        _words(r'User "(?P<who>[^"]+)" cannot (?P<verb>\w+) resource "(?P<what>[^"]+)"'),
        lambda s: f"the controller may not {s.found['verb']} {s.found['what']} here ({s.found['who']})",
        "have the operator's roles installed for this namespace (the chart's watchNamespaces)",
    ),
    Rule(
        "refused",
        _refused,
        lambda s: f"the API server refuses what the job needs: {_message(s)}",
        "correct what the message names; the job tries again by itself",
    ),
)
