"""Kubeflow's Training Operator as a process beside a control plane of the tests' own."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

from support import gomodules, real
from support.controlplane import ControlPlane
from support.guarded import Guarded
from trainserve.kube import names
from trainserve.kube.client import KubeCluster
from trainserve.kube.cluster import AlreadyExists, Manifest
from trainserve.kube.crd import pytorchjob_crd
from trainserve.machine.ports import LOOPBACK, Reserved

MODULE = "github.com/kubeflow/training-operator"
VERSION = "v1.8.1"
NAMESPACE = "kubeflow"
STARTED_S = 120.0
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


@asynccontextmanager
async def operating(plane: ControlPlane, cluster: KubeCluster, version: str) -> AsyncIterator[Guarded]:
    """It at work on PyTorchJobs alone. Its webhook is registered for no namespace: no Service reaches it here."""
    module = gomodules.files_of(MODULE, version)
    await use_crd(cluster, yaml.safe_load((module / "manifests/base/crds/kubeflow.org_pytorchjobs.yaml").read_text()))
    await prepare(cluster)
    ports = Reserved()
    log = plane.folder / "theirs.log"
    words = [
        gomodules.program(MODULE, version, "training-operator.v1"),
        f"--kubeconfig={plane.kubeconfig}",
        "--enable-scheme=pytorchjob",
        f"--metrics-bind-address={LOOPBACK}:{ports.port('metrics')}",
        f"--health-probe-bind-address={LOOPBACK}:{ports.port('health')}",
        f"--webhook-server-port={ports.port('webhook')}",
    ]
    process = Guarded(words, log)
    try:
        give_up = time.monotonic() + STARTED_S
        while not (await certificates_written(cluster) and "Starting workers" in log.read_text()):
            assert process.alive(), f"it has ended:\n{process.tail()}"
            assert time.monotonic() < give_up, f"not at work within {STARTED_S:.0f} s:\n{process.tail()}"
            await asyncio.sleep(0.1)
        yield process
    finally:
        process.stop()
        ports.release_all()
        log.unlink()


async def use_crd(cluster: KubeCluster, crd: Manifest) -> None:
    """Install this CRD, or put its content into the place of the one that is there."""
    try:
        await cluster.create(names.CRD, None, crd)
    except AlreadyExists:
        ours = pytorchjob_crd()["metadata"]
        marks = {
            part: {key: (crd["metadata"].get(part) or {}).get(key) for key in ours.get(part) or {}}
            for part in ("labels", "annotations")
        }
        await cluster.patch(names.CRD, None, crd["metadata"]["name"], {"metadata": marks, "spec": crd["spec"]})
    await real.install(cluster)
    await asyncio.sleep(2)  # until the server has taken up the new schema
