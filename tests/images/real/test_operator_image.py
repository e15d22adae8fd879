"""The operator's image, built as a user builds it and run as a kubelet runs it. Needs buildah: `make test-images`."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from support import imagestore
from trainserve import __version__
from trainserve.cli.main import EXTRAS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
USER = 1_234_567  # as platforms give each namespace its own
TOOLS = re.compile(r"(gcc|g\+\+|cc|c\+\+|cpp|ld|as|make|cmake|git|pip|uv|curl|wget|hatch|cargo|go)[0-9.-]*")
# Every module of ours, and what it lacks; every package that is installed.
IMPORTS = """\
import importlib, json, pkgutil, sys
import trainserve
found = {}
for each in pkgutil.walk_packages(trainserve.__path__, "trainserve.", onerror=lambda name: None):
    if each.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(each.name)
        found[each.name] = ""
    except ModuleNotFoundError as error:
        found[each.name] = (error.name or "?").split(".")[0]
for name in ("kubernetes", "aiohttp", "prometheus_client", "yaml", "pydantic", "rich", "PIL"):
    importlib.import_module(name)
json.dump(found, sys.stdout)
"""


@dataclass(frozen=True)
class Image:
    name: str
    root: Path
    config: dict[str, object]

    def run(self, *command: str) -> CompletedProcess[str]:
        variables = dict(line.split("=", 1) for line in self.config["Env"])  # type: ignore[attr-defined]
        return imagestore.run_in(self.root, USER, variables, command)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with imagestore.alone():
        name = imagestore.build("operator")
        config = json.loads(imagestore.buildah("inspect", "--type", "image", name).stdout)["Docker"]["config"]
        container = imagestore.buildah("from", "--pull-never", name).stdout.strip()
        try:
            yield Image(name, Path(imagestore.buildah("mount", container).stdout.strip()), config)
        finally:
            imagestore.buildah("rm", container)


def test_it_says_what_it_is(image: Image) -> None:
    labels = image.config["Labels"]
    assert isinstance(labels, dict)
    told = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert told["version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", told["revision"])
    assert told["licenses"] == "Apache-2.0"
    assert told["title"] == "trainserve operator"
    assert told["base.name"].startswith(f"{imagestore.PREFIX}/base:")
    assert image.config["User"] == "65532:65532"
    assert image.config["Entrypoint"] == ["platform"]
    assert image.config["Cmd"] == ["operator", "run"]


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (("platform", "--version"), f"platform, version {__version__}\n"),
        (("platform", "operator", "run", "--help"), "Usage: platform operator run "),
        (("python", "-c", "import os, getpass; print(os.getuid(), os.path.expanduser('~'), getpass.getuser())"),
         f"{USER} /tmp trainserve\n"),
    ],
)  # fmt: skip
def test_it_runs_as_any_user_on_a_read_only_root(image: Image, command: tuple[str, ...], out: str) -> None:
    done = image.run(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(out)


def test_only_tmp_can_be_written(image: Image) -> None:
    for path, code in (("/opt/trainserve/x", 1), ("/x", 1), ("/home/x", 1), ("/tmp/x", 0)):
        done = image.run("python", "-c", f"open({path!r}, 'w')")
        assert done.returncode == code, (path, done.stderr)


def test_every_module_of_the_controller_can_be_imported(image: Image) -> None:
    done = image.run("python", "-c", IMPORTS)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    assert len(found) > 200
    lacking = {module: package for module, package in found.items() if package}
    assert not [
        module for module in lacking if re.match(r"trainserve\.(cli|operator|kube|spec|observe|local)\b", module)
    ]
    # What is left needs an extra that is not in this image.
    assert {EXTRAS[package] for package in lacking.values()} <= {"train", "serve", "export"}


def test_without_a_cluster_it_ends_with_words(image: Image) -> None:
    done = image.run("platform", "operator", "run", "--no-leader-elect")
    assert done.returncode in {2, 3}
    assert done.stderr.splitlines()[-1].startswith("hint: ")
    assert "Traceback" not in done.stderr


def test_no_tool_history_cache_or_test_is_in_it(image: Image) -> None:
    wrong = []
    for folder, folders, files in os.walk(image.root):
        inside = "/" + str(Path(folder).relative_to(image.root)).removeprefix(".")
        wrong += [f"{inside}/{name}" for name in folders if name in {".git", ".cache", "python-wheels", "ensurepip"}]
        if inside.endswith("bin"):
            wrong += [f"{inside}/{name}" for name in files if TOOLS.fullmatch(name)]
        if inside.startswith("/opt") and "/kubernetes/" not in inside:
            wrong += [
                f"{inside}/{name}" for name in files if name.startswith(("pip-", "conftest")) or name == "build.py"
            ]
    assert wrong == []
    assert os.listdir(image.root / "opt") == ["trainserve"]
    assert not (image.root / "src").exists()
    assert os.listdir(image.root / "tmp") == []


def test_everybody_may_read_it_and_nobody_may_write_it(image: Image) -> None:
    wrong = []
    for folder, folders, files in os.walk(image.root / "opt/trainserve"):
        for name in [*folders, *files]:
            path = Path(folder, name)
            if path.is_symlink():
                continue
            status = path.stat()
            needed = 0o555 if path.is_dir() else 0o444
            bad = status.st_mode & (stat.S_IWOTH | stat.S_IWGRP | stat.S_ISUID | stat.S_ISGID)
            if status.st_uid != 0 or bad or status.st_mode & needed != needed:
                wrong.append(f"{path} {status.st_mode:o} {status.st_uid}")
    assert wrong == []


def test_it_is_small(image: Image) -> None:
    size = sum(
        Path(folder, name).lstat().st_size
        for folder, _, files in os.walk(image.root / "opt/trainserve")
        for name in files
    )
    assert size < 300e6, f"{size / 1e6:.0f} MB: something came in that the controller does not need"
