"""The programs of a real node, made once and kept in the user's cache: kubelet and kube-proxy from Kubernetes' Go
module, CoreDNS from its own. Debian has the rest: containerd, runc, the CNI plugins.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from support.clusterbinaries import KUBERNETES, linked
from support.gomodules import find_go, go, kept, lock_of, say
from trainserve.errors import EnvironmentProblem

MODULE = Path(__file__).parents[2] / "tests/node/parts"
COREDNS = "github.com/coredns/coredns@v1.12.4"
PARTS = "parts"  # kubelet, kube-proxy and what makes their certificates
PAUSE = "pause"
CNI = Path("/usr/lib/cni")
# What a node and its images need, and the package of Debian or Ubuntu that has it.
PACKAGES: Mapping[str, str] = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    str(CNI / "bridge"): "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mmdebstrap": "mmdebstrap",
    "buildah": "buildah",
}
INSTALL_S = 600


def programs() -> Path:
    """The folder with `parts`, `pause` and `coredns` in it. Raises EnvironmentProblem where one cannot be made."""
    digest = hashlib.sha256(f"{COREDNS} {KUBERNETES}".encode())
    for source in sorted(path for path in MODULE.rglob("*") if path.is_file()):
        digest.update(source.read_bytes())
    folder = kept() / f"node-{digest.hexdigest()[:12]}" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    if not all((folder / name).exists() for name in (PARTS, PAUSE, "coredns")):
        lock = lock_of(folder / ".lock")
        try:
            _build(folder)
        finally:
            os.close(lock)
    return folder


def _build(folder: Path) -> None:
    find_go()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source, made = Path(scratch, "module"), Path(scratch, "made")
        shutil.copytree(MODULE, source)
        made.mkdir()
        flags = ("-trimpath", "-ldflags", linked())
        if not (folder / "coredns").exists():
            say(f"building {COREDNS}, once: two minutes")
            go(Path(scratch), "install", *flags, COREDNS, GOBIN=str(made))
        say("building kubelet and kube-proxy, once: a minute where the control plane was built, else four")
        go(source, "build", "-mod=readonly", *flags, "-o", made / PARTS, ".")
        go(source, "build", "-mod=readonly", *flags, "-o", made / PAUSE, "./pause")
        for program in made.iterdir():
            program.chmod(0o755)
            program.replace(folder / program.name)
    say(f"a node's programs are ready after {time.monotonic() - began:.0f} s: {folder}")


def require_packages() -> None:
    """Install Debian packages that are missing. Raises EnvironmentProblem, with the line to type, where it cannot."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise EnvironmentProblem(
            f"a real node needs Linux and root; this is {sys.platform}, user {os.geteuid()}",
            hint="run it in a virtual machine of its own, as root: sudo make test-node",
        )
    missing = sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})
    if not missing:
        return
    line = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    hint = f"type: apt-get update && {' '.join(line)}"
    if shutil.which("apt-get") is None:
        raise EnvironmentProblem(f"programs of a node are missing here: {', '.join(missing)}", hint=hint)
    say(f"installing {', '.join(missing)}")
    for words in (["apt-get", "update", "-qq"], line):
        done = subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
        if done.returncode:
            said = "\n".join(done.stderr.strip().splitlines()[-8:])
            raise EnvironmentProblem(f"{' '.join(words)} failed ({done.returncode}):\n{said}", hint=hint)
