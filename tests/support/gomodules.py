"""Programs built once from their Go modules, and kept in the user's cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from trainserve.errors import EnvironmentProblem
from trainserve.machine import locks

INSTALLED_GO = "/usr/local/go/bin/go"  # where Go's own archive is unpacked to, also when nobody has put it into PATH
GO_HINT = (
    "install Go 1.26 or newer (https://go.dev/doc/install), or set KUBECONFIG to the path of the kubeconfig of a "
    "cluster for tests; SKIP_CLUSTER=1 leaves these tests out"
)


def kept() -> Path:
    """The folder below which tests keep what takes minutes to make."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainserve"


def program(module: str, version: str, name: str) -> Path:
    """The command `name` of a module, built unless it is there. Raises EnvironmentProblem where it cannot be."""
    path = kept() / f"{name}-{version}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = lock_of(path.parent / ".lock")
    try:
        if not path.exists():
            say(f"building {module} {version}, once: some minutes")
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                go(Path(scratch), "install", f"{module}/cmd/{name}@{version}", GOBIN=scratch)
                Path(scratch, name).replace(path)
    finally:
        os.close(lock)
    return path


def files_of(module: str, version: str) -> Path:
    """Where Go keeps the module's files: its own manifests are applied from there. Raises EnvironmentProblem."""
    with tempfile.TemporaryDirectory() as nowhere:
        return Path(json.loads(go(Path(nowhere), "mod", "download", "-json", f"{module}@{version}"))["Dir"])


def find_go() -> str:
    """Raises EnvironmentProblem where there is none."""
    found = shutil.which("go") or shutil.which(INSTALLED_GO)
    if found is None:
        raise EnvironmentProblem("no Go is installed here, and the test cluster is built with it", hint=GO_HINT)
    return found


def go(directory: Path, *words: object, **env: str) -> str:
    """What the command prints. Raises EnvironmentProblem with the end of what it complains of."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", **env}
    done = subprocess.run(
        [find_go(), *map(str, words)], cwd=directory, env=environment, check=False, capture_output=True
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-15:]
        raise EnvironmentProblem(
            f"go {words[0]} failed for the test cluster ({done.returncode}):\n" + "\n".join(said),
            hint="if a module cannot be fetched, set GOPROXY to a proxy that this machine reaches and run it again: "
            f"what is there already is kept. Or {GO_HINT}",
        )
    return done.stdout.decode()


def lock_of(path: Path) -> int:
    """The lock of a folder in which something is made; waits for whoever has it, and says so."""
    told = False
    while (lock := locks.take(path)) is None:
        if not told:
            say(f"another process is making {path.parent}: waiting for it")
            told = True
    return lock


def say(text: str) -> None:
    print(f"test cluster: {text}", file=sys.stderr, flush=True)
