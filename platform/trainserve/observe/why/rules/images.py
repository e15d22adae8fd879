"""Images that cannot be pulled, by what the registry, the network or the kubelet said."""

from __future__ import annotations

from trainserve.observe.why.conditions import both, cluster_says, either, message, pod, reason
from trainserve.observe.why.rule import Rule
from trainserve.observe.why.scene import Scene, search


def _image(scene: Scene) -> str:
    found = search(r'[Ii]mage "(?P<image>[^"]+)"', scene.message)
    return f"image {found['image']}" if found else "its image"


_PULL = reason("ErrImagePull", "ImagePullBackOff")

RULES: tuple[Rule, ...] = (
    Rule(
        "pull-secret-missing",
        reason("FailedToRetrieveImagePullSecret"),
        lambda s: f"the secret with which {pod(s)} is to pull its image does not exist: {cluster_says(s)}",
        lambda s: (
            f"{s.evidence.kubectl or 'kubectl'} create secret docker-registry NAME ... , or correct --pull-secret; "
            "without one a public image is still pulled"
        ),
    ),
    Rule(
        "image-name",
        reason("InvalidImageName", "InspectFailed"),
        lambda s: f"{pod(s)}: {_image(s)} has no valid name: {cluster_says(s)}",
        "correct --image: NAME:TAG in small letters, no blanks, no https://",
    ),
    Rule(
        "image-absent",
        reason("ErrImageNeverPull"),
        lambda s: f"{pod(s)}: {_image(s)} is not on its node, and imagePullPolicy is Never",
        "load it on every node, or set spec.pod.imagePullPolicy to IfNotPresent",
    ),
    Rule(
        "image-denied",
        both(
            _PULL,
            message(r"(?i)unauthori[sz]ed|denied|authentication|authorization failed|no basic auth|403 Forbidden"),
        ),
        lambda s: f"{pod(s)}: the registry does not let this cluster pull {_image(s)}: {cluster_says(s)}",
        "name a secret that may read that registry: --pull-secret NAME; or correct --image",
    ),
    Rule(
        "image-not-found",
        both(_PULL, message(r"(?i)not found|manifest unknown|NotFound|repository .* does not exist|name unknown")),
        lambda s: f"{pod(s)}: there is no {_image(s)}: {cluster_says(s)}",
        "correct --image: repository and tag",
    ),
    Rule(
        "registry-unreachable",
        both(
            _PULL,
            message(
                r"(?i)no such host|dial tcp|connection refused|i/o timeout|TLS handshake|deadline exceeded|x509|"
                r"server gave HTTP response"
            ),
        ),
        lambda s: f"{pod(s)}: the node cannot reach the registry of {_image(s)}: {cluster_says(s)}",
        "correct the registry's host in --image, or the nodes' way to it (DNS, proxy, certificate)",
    ),
    Rule(
        "image-platform",
        both(_PULL, message(r"(?i)no match for platform|exec format error")),
        lambda s: f"{pod(s)}: {_image(s)} is not built for its node's processor: {cluster_says(s)}",
        "use an image of that platform, or --node-selector kubernetes.io/arch=amd64",
    ),
    Rule(
        "image",
        either(_PULL, reason("RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed")),
        lambda s: f"{pod(s)}: {_image(s)} cannot be pulled: {cluster_says(s)}",
        "correct --image, or name the registry's secret with --pull-secret",
    ),
)
