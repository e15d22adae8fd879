"""Kubeflow's Training Operator as a process beside a control plane of the tests' own."""

from __future__ import annotations

import base64
from pathlib import Path

from trainserve.kube import names
from trainserve.kube.client import KubeCluster
from trainserve.kube.cluster import AlreadyExists, Manifest

MODULE = "github.com/kubeflow/training-operator"
VERSION = "v1.8.1"
NAMESPACE = "kubeflow"
_SERVING = Path("/tmp/k8s-webhook-server/serving-certs")  # where its webhook server looks: no flag says otherwise
SECRET = names.Kind("", "v1", "Secret", "secrets")
WEBHOOKS = names.Kind(
    "admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations"
)


async def prepare(cluster: KubeCluster) -> None:
    """What its certificate rotator fills in, empty."""
    nowhere = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "nowhere"}}}
    client = {"service": {"name": "training-operator", "namespace": NAMESPACE, "path": "/validate-pytorchjob"}}
    rule = {
        "apiGroups": ["kubeflow.org"],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pytorchjobs"],
    }
    webhook = {
        "name": "validator.pytorchjob.training-operator.kubeflow.org",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": client,
        "rules": [rule],
        **nowhere,
    }
    objects: list[tuple[names.Kind, str | None, Manifest]] = [
        (names.NAMESPACE, None, {"metadata": {"name": NAMESPACE}}),
        (SECRET, NAMESPACE, {"metadata": {"name": "training-operator-webhook-cert"}}),
        (WEBHOOKS, None, {"metadata": {"name": "validator.training-operator.kubeflow.org"}, "webhooks": [webhook]}),
    ]
    for kind, namespace, content in objects:
        try:
            await cluster.create(kind, namespace, {"apiVersion": kind.api_version, "kind": kind.kind, **content})
        except AlreadyExists:
            continue


async def certificates_written(cluster: KubeCluster) -> bool:
    """The files that a mounted Secret would be, once its rotator has filled it."""
    _SERVING.mkdir(parents=True, exist_ok=True)
    data = (await cluster.get(SECRET, NAMESPACE, "training-operator-webhook-cert")).get("data") or {}
    for name in ("tls.crt", "tls.key", "ca.crt"):
        if name not in data:
            return False
        (_SERVING / name).write_bytes(base64.b64decode(data[name]))
    return True
