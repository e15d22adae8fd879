"""The steps of an image's build stage, the same for all images: locked packages, then this project.

    install.py packages EXTRA...    a virtual environment with what the extras need, by requirements.lock and its hashes
    install.py project VERSION      this project into it; VERSION has to be the tree's
    install.py download EXTRA...    what `packages` and `project` need into wheels/, for a build that reaches no index

Runs with nothing but Python's own library. From the environment: TORCH_INDEX, an index with other builds of torch than
the lock file's; TORCH_HASHES, what their files hash to. Two secrets are used where the build is given them: `pip.conf`
says which index is asked, `ca` whom to trust.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lockfile

ROOT = Path(__file__).resolve().parents[2]
WHEELS = Path(__file__).resolve().parent / "wheels"
TARGET = Path("/opt/trainserve")
TOOLS = Path("/opt/tools")  # pip and what builds a wheel: they stay in the build stage
CA = Path("/run/secrets/ca")


def main(words: Sequence[str]) -> int:
    """Run one step; 2 where its words make no sense, else 1 where pip has refused something."""
    steps = {"packages": packages, "project": project, "download": download}
    if not words or words[0] not in steps:
        sys.stderr.write(__doc__ or "")
        return 2
    try:
        steps[words[0]](words[1:])
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"error: {' '.join(map(str, error.cmd[:4]))} ... ended with {error.returncode}\n")
        return 1
    return 0


def packages(extras: Sequence[str]) -> None:
    """Two virtual environments: the tools with pip, and the target, without, filled from the lock file."""
    _run([sys.executable, "-m", "venv", str(TOOLS)])
    _run([sys.executable, "-m", "venv", "--without-pip", str(TARGET)])
    index = os.environ.get("TORCH_INDEX", "")
    chosen = _chosen(extras, cuda=not index)
    if index:
        chosen = _torch_of(index, chosen)
    _install(lockfile.as_requirements(chosen), "--require-hashes")


def project(words: Sequence[str]) -> None:
    """The project's wheel, built by the locked builder, into the target."""
    (version,) = words or ("",)
    own = version_of_tree()
    if version != own:
        raise ValueError(f"build argument VERSION is {version!r}, and this tree is {own}: --build-arg VERSION={own}")
    _install(lockfile.as_requirements(_builders()), "--require-hashes", python=TOOLS)
    pip = [str(TOOLS / "bin/python"), "-m", "pip"]
    with tempfile.TemporaryDirectory() as folder:
        _run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--quiet", "-w", folder, str(ROOT)])
        (wheel,) = Path(folder).glob("*.whl")
        _run([*pip, *_into(TARGET), "install", "--no-deps", "--no-index", "--no-cache-dir", str(wheel)])
    _run([*pip, *_into(TARGET), "check"])


def download(extras: Sequence[str]) -> None:
    """The files of `packages` and of the builder, checked, into wheels/. For this Python and this kind of machine."""
    locked = {package.name: package for package in _chosen(extras) + _builders()}
    pip = [sys.executable, "-m", "pip", "download", "--require-hashes", "--only-binary=:all:", "--no-deps"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(lockfile.as_requirements(locked.values()))
        file.flush()
        _run([*pip, "-d", str(WHEELS), "-r", file.name])


def version_of_tree() -> str:
    """The one place where the version is written."""
    path = ROOT / str(_project()["tool"]["hatch"]["version"]["path"])
    for line in path.read_text().splitlines():
        if line.startswith("__version__ = "):
            return line.partition("= ")[2].strip('"')
    raise ValueError(f"{path} has no line __version__ = ...")


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _locked() -> dict[str, lockfile.Locked]:
    return lockfile.read((ROOT / "requirements.lock").read_text())


def _chosen(extras: Sequence[str], *, cuda: bool = True) -> list[lockfile.Locked]:
    return lockfile.closure(_locked(), lockfile.wanted(_project(), extras), cuda=cuda)


def _builders() -> list[lockfile.Locked]:
    return lockfile.closure(_locked(), [lockfile.normal(each) for each in _project()["build-system"]["requires"]])


def _torch_of(index: str, chosen: list[lockfile.Locked]) -> list[lockfile.Locked]:
    """Install torch and torchvision from `index`, in the locked versions; what is left of `chosen`."""
    hashes = os.environ.get("TORCH_HASHES", "").split()
    torch = [package for package in chosen if package.name in lockfile.OF_TORCH]
    if not torch:
        sys.stderr.write("TORCH_INDEX has no effect: there is no torch in this image\n")
        return chosen
    if not hashes:
        sys.stderr.write("warning: no TORCH_HASHES: what TORCH_INDEX sends as torch is not checked\n")
    pins = [f"{package.name}=={package.version}" for package in torch]
    lines = [" ".join([pin, *(f"--hash={each}" for each in hashes)]) for pin in pins]
    options = ["--index-url", index, "--no-deps", *(["--require-hashes"] if hashes else [])]
    _install("\n".join(lines) + "\n", *options)
    return [package for package in chosen if package not in torch]


def _install(requirements: str, *options: str, python: Path = TARGET) -> None:
    """Let pip install these lines: wheels only, so that nothing needs a compiler."""
    local = ["--no-index", "--find-links", str(WHEELS)] if any(WHEELS.glob("*.whl")) else []
    pip = [str(TOOLS / "bin/python"), "-m", "pip", *_into(python), "install", "--no-cache-dir", "--only-binary=:all:"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        _run([*pip, *(["--cert", str(CA)] if CA.exists() else []), *local, *options, "-r", file.name])


def _into(environment: Path) -> list[str]:
    return ["--python", str(environment / "bin/python"), "--disable-pip-version-check"]


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
