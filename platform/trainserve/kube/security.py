"""What a training pod may do: Pod Security "restricted", and a root filesystem that nobody writes to. Pure.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from trainserve.kube import names
from trainserve.kube.cluster import Manifest


def of_pod() -> Manifest:
    """A user that no one is, and a group that its volumes are made writable for, where the driver can."""
    return {
        "runAsNonRoot": True,
        "runAsUser": names.POD_USER,
        "runAsGroup": names.POD_USER,
        "fsGroup": names.POD_USER,
        "fsGroupChangePolicy": "OnRootMismatch",  # a data set of a million files is not walked through at each start
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def of_container() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
