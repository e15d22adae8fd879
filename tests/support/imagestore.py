"""Images that buildah builds, in a store of the tests' own in the user's cache: nothing of the machine's is touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from support import nodeimages
from support.gomodules import kept, lock_of, say
from support.imageprograms import FOLDER
from trainserve.errors import EnvironmentProblem

PREFIX = "localhost/trainserve-test"
BUILD_S = 600
KEPT = 100  # layers, of some builds: what the next one may begin with; more are room that nobody gives back
CA = Path("/etc/ssl/certs/ca-certificates.crt")


def environment() -> dict[str, str]:
    """For buildah: the store, and builds in a plain chroot, which needs no container runtime.

    Raises EnvironmentProblem where nothing can be built.
    """
    if shutil.which("buildah") is None or shutil.which("mmdebstrap") is None or os.geteuid() != 0:
        raise EnvironmentProblem(
            "an image is built by buildah and mmdebstrap, as root",
            hint="apt-get install --no-install-recommends buildah mmdebstrap",
        )
    folder = kept() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    conf = folder / "storage.conf"
    conf.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n')
    return {**os.environ, "CONTAINERS_STORAGE_CONF": str(conf), "BUILDAH_ISOLATION": "chroot"}


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """The store for one test run at a time, without what a build that was killed has left in it."""
    environment()
    lock = lock_of(kept() / "images" / ".lock")
    try:
        buildah("rm", "--all")
        if len(buildah("images", "--all", "--quiet").stdout.split()) > KEPT:
            buildah("rmi", "--prune", "--force")
        yield
    finally:
        os.close(lock)


def base() -> str:
    """The name of the base image, Debian with Python, in the store."""
    archive = nodeimages.base()
    name = f"{PREFIX}/base:{archive.parent.name}"
    if buildah("images", "--quiet", name, check=False).returncode != 0:
        say("putting the base image into the store of images, once")
        pulled = buildah("pull", "--quiet", f"docker-archive:{archive}").stdout.split()[-1]
        buildah("tag", pulled, name)
    return name


def build(role: str) -> str:
    """Build an image as `make images` does, on the base above; its name."""
    words = [role, "--engine", "buildah", "--prefix", PREFIX, "--tag", "built", "--base", base()]
    ca = ["--ca", str(CA)] if CA.exists() else []
    done = subprocess.run(
        [sys.executable, str(FOLDER / "build.py"), *words, *ca], env=environment(), capture_output=True, text=True,
        timeout=BUILD_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(done.stderr[-4000:])
    (name,) = done.stdout.splitlines()
    return name


def buildah(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of buildah's commands on the store."""
    return subprocess.run(
        ["buildah", *words], env=environment(), capture_output=True, text=True, timeout=BUILD_S, check=check
    )


def run_in(
    root: Path, user: int, variables: dict[str, str], command: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run a command in the tree `root` as a kubelet would with readOnlyRootFilesystem and an emptyDir at /tmp."""
    program = Path(__file__).with_name("readonlyroot.py")
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, str(program), str(root), str(user)]
    return subprocess.run([*words, *command], env=variables, capture_output=True, text=True, timeout=120, check=False)
