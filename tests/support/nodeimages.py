"""Images of a real node without a registry, as archives that `docker save` would write."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from support import nodebinaries, nodeconfig
from support.enclosure import run
from support.gomodules import kept, lock_of, say
from trainserve.errors import EnvironmentProblem
from trainserve.kube import names

BASE_IMAGE = "localhost/python-base:test"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Python as Debian has it, and what wheels expect of a system: torch and its neighbours bring the rest.
PACKAGES = (
    "python3",
    "python3-pip",
    "python3-venv",
    "python-is-python3",
    "ca-certificates",
    "libstdc++6",
    "libgomp1",
    "libglib2.0-0",
)
WITHOUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
MAKE_S = 600
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def pause(folder: Path) -> Path:
    """The image that holds a pod's namespaces open: one program."""
    layer = folder / "pause-layer.tar"
    with tarfile.open(layer, "w") as tar:
        program = nodebinaries.programs() / nodebinaries.PAUSE
        tar.add(program, "pause", filter=_of_root)
    return archive([layer], folder / "pause.tar", nodeconfig.PAUSE_IMAGE, ["/pause"])


def base() -> Path:
    """Debian with Python, made once and kept; this Python's minor version, so that pods can use its packages.

    Raises EnvironmentProblem where Debian's archive cannot be reached, or has another Python.
    """
    suite, sources = _sources()
    digest = hashlib.sha256("\n".join([suite, *PACKAGES, *WITHOUT, BASE_IMAGE]).encode()).hexdigest()
    folder = kept() / f"node-base-{digest[:12]}"
    made = folder / "base.tar"
    folder.mkdir(parents=True, exist_ok=True)
    if not made.exists():
        lock = lock_of(folder / ".lock")
        try:
            if not made.exists():
                say("making a base image of Debian with Python, once: a minute or two")
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    root = Path(scratch, "root.tar")
                    run("mmdebstrap", *_options(), suite, root, *sources, timeout_s=MAKE_S)
                    archive([root], Path(scratch, "base.tar"), BASE_IMAGE, ["python3"]).replace(made)
        finally:
            os.close(lock)
    return made


def trainer(folder: Path, code: Path) -> Path:
    """The base with our code in it, without what that imports: enough for a helper pod, which needs nothing else."""
    with tarfile.open(base()) as tar:
        (within,) = json.loads(_member(tar, "manifest.json").read())[0]["Layers"]
        below = folder / "below.tar"
        with below.open("wb") as to:
            shutil.copyfileobj(_member(tar, within), to)
    layer = folder / "code-layer.tar"
    with tarfile.open(layer, "w") as tar:
        packages = f"usr/local/lib/python{sys.version_info.major}.{sys.version_info.minor}/dist-packages"
        tar.add(code / "trainserve", f"{packages}/trainserve", filter=_of_root)
    return archive([below, layer], folder / "trainer.tar", names.image_for(names.IMAGE_TRAINER), ["python3"])


def archive(layers: list[Path], to: Path, name: str, command: list[str]) -> Path:
    """An image of these layers, the lowest first; their files are removed."""
    digests = []
    for layer in layers:
        with layer.open("rb") as content:
            digests.append(hashlib.file_digest(content, "sha256").hexdigest())
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Cmd": command, "Env": [f"PATH={PATH}"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tests"} for _ in digests],
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    members = [f"{digest}/layer.tar" for digest in digests]
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": members}]).encode()
    with tarfile.open(to, "w") as tar:
        for member, content_of in ((config_name, config), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(member)
            entry.size = len(content_of)
            tar.addfile(entry, io.BytesIO(content_of))
        for layer, member in zip(layers, members, strict=True):
            tar.add(layer, member)
            layer.unlink()
    return to


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    found = tar.extractfile(name)
    assert found is not None, f"{name} is no file"
    return found


def _of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def _sources() -> tuple[str, list[Path]]:
    """The release of this machine, and the files that say where its packages come from."""
    release = platform.freedesktop_os_release()
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    own = {"bookworm": "3.11", "trixie": "3.13", "noble": "3.12"}.get(release.get("VERSION_CODENAME", ""))
    if own != minor:
        raise EnvironmentProblem(
            f"pods use the packages of this environment, Python {minor}, on an image of this machine's system, "
            f"{release.get('PRETTY_NAME')}, which has Python {own or 'of a version not known here'}",
            hint="make .venv with the system's Python version, or run it on Debian 12, 13 or Ubuntu 24.04",
        )
    lists = Path("/etc/apt/sources.list.d")
    found = [*sorted(lists.glob("*.sources")), *sorted(lists.glob("*.list")), Path("/etc/apt/sources.list")]
    return release["VERSION_CODENAME"], [path for path in found if path.exists()]


def _options() -> list[str]:
    return [
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        '--aptopt=Acquire::Retries "3"',
        *(f"--dpkgopt=path-exclude={path}" for path in WITHOUT),
        "--customize-hook=copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs",
    ]
