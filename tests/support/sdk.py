"""Kubeflow's Python SDK, as published: it wants another client of Kubernetes than ours."""

from __future__ import annotations

from pathlib import Path

from support.environments import python_with


def python() -> Path:
    """The interpreter of an environment with the SDK."""
    return python_with("sdk", "kubeflow-training==1.9.4", "kubernetes<36")
