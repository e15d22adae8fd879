"""The HorizontalPodAutoscaler of an elastic job: it sets the number of Workers by the scale subresource.

Source: kubeflow.org/v1 of the Training Operator v1.9, autoscaling/v2.
"""

from __future__ import annotations

import hashlib
import json

from trainserve.kube import names, replicas
from trainserve.kube.cluster import Manifest


def is_wanted(job: Manifest) -> bool:
    """Whether the job has metrics to be scaled by."""
    return bool((job["spec"].get("elasticPolicy") or {}).get("metrics"))


def autoscaler(job: Manifest) -> Manifest:
    """The whole object, named as the job; `job` is defaulted, and has elasticPolicy.metrics."""
    metadata, elastic = job["metadata"], job["spec"]["elasticPolicy"]
    spec = {
        "scaleTargetRef": {
            "apiVersion": names.PYTORCHJOB.api_version,
            "kind": names.PYTORCHJOB.kind,
            "name": metadata["name"],
        },
        "minReplicas": elastic["minReplicas"],
        "maxReplicas": elastic["maxReplicas"],
        "metrics": elastic["metrics"],
    }
    return {
        "apiVersion": names.AUTOSCALER.api_version,
        "kind": names.AUTOSCALER.kind,
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": names.job_selector(metadata["name"]),
            "annotations": {names.ANNOTATION_WANTED: _digest(spec)},
            "ownerReferences": [replicas.owner_reference(job)],
        },
        "spec": spec,
    }


def difference(wanted: Manifest, there: Manifest) -> Manifest | None:
    """The merge patch that makes `there` as `wanted`; None: it is.

    By the digest of what we asked for last: the server writes amounts in its own way ("1000m" becomes "1").
    """
    annotations = there["metadata"].get("annotations") or {}
    digest = wanted["metadata"]["annotations"][names.ANNOTATION_WANTED]
    if annotations.get(names.ANNOTATION_WANTED) == digest:
        return None
    return {"metadata": {"annotations": {names.ANNOTATION_WANTED: digest}}, "spec": wanted["spec"]}


def _digest(spec: Manifest) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
