"""Build the container images with docker, podman or buildah, whichever is here: `make images`.

Standard output is one line an image, its name, once it is built; everything else goes to standard error. Needs Python
3.11 and no package.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import install

ROOT = install.ROOT
ROLES = ("trainer", "server", "operator")
PREFIX = "ghcr.io/trainserve"  # as kube/names.py has it, which a test compares
ENGINES = ("docker", "podman", "buildah")
# What each needs beside `build`. docker: without BuildKit it knows no secrets.
FLAGS = {"docker": (), "podman": ("--format", "docker"), "buildah": ("--layers", "--format", "docker")}
STDERR = 2  # what engines print is talk
ENVIRONMENT = {"docker": {"DOCKER_BUILDKIT": "1"}}


class Refused(Exception):
    """What stands in the way, and what helps: exit code 2 for words, 3 for the machine."""

    def __init__(self, message: str, hint: str, code: int = 3) -> None:
        super().__init__(message)
        self.message, self.hint, self.code = message, hint, code


@dataclass(frozen=True)
class Build:
    """What the images are built of; empty means the Dockerfile's own value."""

    engine: str
    prefix: str
    tag: str
    version: str
    revision: str
    base: str = ""
    extras: str = ""
    torch_index: str = ""
    torch_hashes: str = ""
    pip_conf: str = ""
    ca: str = ""
    more: tuple[str, ...] = ()

    def name(self, role: str) -> str:
        return f"{self.prefix}/{role}:{self.tag}"

    def command(self, role: str) -> list[str]:
        """The engine's command line for one image; run in the repository's root."""
        arguments = {
            "VERSION": self.version,
            "REVISION": self.revision,
            "BASE": self.base,
            "EXTRAS": self.extras,
            "TORCH_INDEX": self.torch_index,
            "TORCH_HASHES": self.torch_hashes,
        }
        secrets = {"pip.conf": self.pip_conf, "ca": self.ca}
        return [
            *(self.engine, "build", *FLAGS[self.engine], "--file", f"manifests/images/{role}/Dockerfile"),
            *(word for name, value in arguments.items() if value for word in ("--build-arg", f"{name}={value}")),
            *(word for name, path in secrets.items() if path for word in ("--secret", f"id={name},src={path}")),
            *("--tag", self.name(role), *self.more, "."),
        ]


def find_engine(asked: str, path: str | None = None) -> str:
    """The engine that was asked for, or the first that works here."""
    if asked:
        if shutil.which(asked, path=path) is None:
            raise Refused(f"--engine {asked}: there is no such program on PATH", "install it, or leave --engine out")
        return asked
    found = [engine for engine in ENGINES if shutil.which(engine, path=path)]
    for engine in found:
        if engine != "docker" or _docker_answers(path):
            return engine
    why = "docker is here, but its daemon does not answer" if found else f"none of {', '.join(ENGINES)} is on PATH"
    raise Refused(f"nothing here can build an image: {why}", "apt-get install buildah, which needs no daemon")


def _docker_answers(path: str | None) -> bool:
    docker = shutil.which("docker", path=path) or "docker"
    done = subprocess.run([docker, "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def revision(root: Path = ROOT) -> str:
    """The commit of the tree, with `-dirty` where files differ from it; `unknown` outside a repository."""
    if shutil.which("git") is None:
        return "unknown"
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    if head.returncode != 0:
        return "unknown"
    changes = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("-dirty" if changes.stdout.strip() else "")


def parse(words: Sequence[str], environment: Mapping[str, str]) -> tuple[list[str], argparse.Namespace]:
    """Which images, and how. What stands after `--` is the engine's own."""
    parser = argparse.ArgumentParser(prog="manifests/images/build.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("roles", nargs="*", metavar="IMAGE", help=f"{', '.join(ROLES)}; default: all")
    parser.add_argument("--engine", choices=ENGINES, default="", help="default: the first that works")
    parser.add_argument("--prefix", default=PREFIX, help="registry and owner in the names (default: %(default)s)")
    parser.add_argument("--tag", default="", help="default: the version of this tree")
    parser.add_argument("--base", default="", help="another base image, with Python 3.11 and venv")
    parser.add_argument("--extras", default="", help="other extras of pyproject.toml, such as 'train export'")
    parser.add_argument(
        "--torch-index", default="", metavar="URL", help="an index with other builds of torch: CPU, ROCm"
    )
    parser.add_argument("--torch-hashes", default="", metavar="HASHES", help="what its files hash to: 'sha256:... ...'")
    parser.add_argument("--pip-conf", default=environment.get("PIP_CONFIG_FILE", ""), metavar="FILE",
                        help="which package index the build asks; in no image (default: PIP_CONFIG_FILE)")  # fmt: skip
    parser.add_argument("--ca", default=environment.get("PIP_CERT", ""), metavar="FILE",
                        help="certificates to trust while it does; in no image (default: PIP_CERT)")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the engine's command lines and run none")
    cut = words.index("--") if "--" in words else len(words)
    known = parser.parse_args(words[:cut])
    known.more = tuple(words[cut + 1 :])
    unknown = [role for role in known.roles if role not in ROLES]
    if unknown:
        raise Refused(f"no such image {unknown[0]!r}", f"there are {', '.join(ROLES)}", code=2)
    for option in ("pip_conf", "ca"):
        file = getattr(known, option)
        if file and not Path(file).is_file():
            raise Refused(f"--{option.replace('_', '-')}: {file} is no file", "name one that is there", code=2)
    return list(known.roles) or list(ROLES), known


def main(words: Sequence[str]) -> int:
    """0 when all are built, else 1 (a build failed), 2 (the words), 3 (the machine)."""
    try:
        roles, known = parse(words, os.environ)
        version = install.version_of_tree()
        build = Build(
            engine=find_engine(known.engine),
            prefix=known.prefix,
            tag=known.tag or version.replace("+", "-"),
            version=version,
            revision=revision(),
            base=known.base,
            extras=known.extras,
            torch_index=known.torch_index,
            torch_hashes=known.torch_hashes,
            pip_conf=known.pip_conf,
            ca=known.ca,
            more=known.more,
        )
    except Refused as refused:
        sys.stderr.write(f"error: {refused.message}\nhint: {refused.hint}\n")
        return refused.code
    for role in roles:
        command = build.command(role)
        if known.dry_run:
            sys.stdout.write(shlex.join(command) + "\n")
            continue
        sys.stderr.write(f"building {build.name(role)} with {build.engine}\n")
        environment = {**os.environ, **ENVIRONMENT.get(build.engine, {})}
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=STDERR, check=False)
        if done.returncode != 0:
            sys.stderr.write(f"error: {build.name(role)} is not built: {build.engine} ended with {done.returncode}\n")
            return 1
        sys.stdout.write(build.name(role) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
