"""helm 4 as a user runs it, and kubectl kustomize: what they render, as objects."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support import clusterbinaries
from trainserve.kube import names
from trainserve.kube.cluster import Manifest

ROOT = Path(__file__).resolve().parents[2]
OPERATOR_CHART = ROOT / "helm/platform-operator"
RELEASE = "trainserve"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def helm(*words: object, kubeconfig: Path | None = None, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run it with caches of its own; without `kubeconfig` it reaches no cluster."""
    program = os.environ.get("TEST_HELM") or clusterbinaries.binaries("helm") / "helm"
    with tempfile.TemporaryDirectory(prefix="helm-") as home:
        env = {"PATH": os.environ["PATH"], "HOME": home, "KUBECONFIG": str(kubeconfig or Path(home, "none"))}
        return subprocess.run(
            [program, *map(str, words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=env,
        )


class Helm:
    """`helm("install", "trainserve", CHART)` returns what it prints; another exit code than 0 fails the test."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def __call__(self, *words: object, timeout_s: float = 120) -> str:
        done = helm(*words, kubeconfig=self.kubeconfig, timeout_s=timeout_s)
        assert done.returncode == 0, f"helm {' '.join(map(str, words))}: {done.returncode}\n{done.stderr}"
        return done.stdout


def template(
    values: Mapping[str, Any] | None = None,
    *words: object,
    chart: Path = OPERATOR_CHART,
    release: str = RELEASE,
    namespace: str = names.OPERATOR_NAMESPACE,
) -> subprocess.CompletedProcess[str]:
    """`helm template` with these values in a file; `words`: more of its command line. The same is rendered once."""
    return _template(json.dumps(dict(values or {})), tuple(map(str, words)), chart, release, namespace)


@cache
def _template(
    values: str, words: tuple[str, ...], chart: Path, release: str, namespace: str
) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(values)
        file.flush()
        return helm("template", release, chart, "--namespace", namespace, "--values", file.name, *words)


def rendered(values: Mapping[str, Any] | None = None, *words: object, **options: Any) -> list[Manifest]:
    """The objects; words in stderr fail the test."""
    done = template(values, *words, **options)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def refused(values: Mapping[str, Any] | None = None, *words: object, **options: Any) -> str:
    """What it says to values that it refuses."""
    done = template(values, *words, **options)
    assert done.returncode != 0, "it was rendered"
    return done.stderr


def kustomized(folder: Path) -> list[Manifest]:
    """`kubectl kustomize FOLDER`."""
    program = clusterbinaries.binaries("kubectl") / "kubectl"
    done = subprocess.run([program, "kustomize", folder], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def objects(text: str) -> list[Manifest]:
    """The documents of a YAML stream that are not empty."""
    return [each for each in yaml.load_all(text, _Loader) if each is not None]


def key(manifest: Manifest) -> tuple[str, str, str]:
    """Kind, namespace and name."""
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def by_key(manifests: list[Manifest]) -> dict[tuple[str, str, str], Manifest]:
    found = {key(each): each for each in manifests}
    assert len(found) == len(manifests), "an object is there twice"
    return found


def named(manifests: list[Manifest], kind: str, name: str = names.OPERATOR_ACCOUNT) -> Manifest:
    """The one object of this kind and name."""
    (found,) = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    return found
