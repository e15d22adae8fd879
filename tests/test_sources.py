"""What must be said or done in one place is."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from trainserve.kube import names

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "platform").rglob("*.py"))
NAMES = ROOT / "platform/trainserve/kube/names.py"
# Their Literal types cannot be made of constants.
TYPES = [ROOT / "platform/trainserve" / name for name in ("spec/pytorchjob.py", "client/waiting.py")]
# Modules of distributions that are not called like them; None: a plugin or a tool, which nothing imports.
MODULES = {
    "grpcio": "grpc",
    "pillow": "PIL",
    "prometheus-client": "prometheus_client",
    "pillow-heif": "pillow_heif",
    "python-multipart": "python_multipart",
    "protobuf": "google",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "torch-model-archiver": "model_archiver",
    "torchserve": "ts",
}


def literals(path: Path) -> set[str]:
    """Every string constant of a source that is not a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    }


def spelt_once() -> dict[str, str]:
    """Constants of kube.names whose values mean nothing else elsewhere."""
    kinds = ("ENV_", "LABEL_", "ANNOTATION_", "REASON_", "SUSPEND_BY_", "MESSAGE_")
    found = {name: value for name, value in vars(names).items() if name.startswith(kinds)}
    ours = {name: getattr(names, name) for name in ("INTERRUPTED", "SUSPENDED", "RESTARTING")}
    return {**found, **ours}


def test_names_reasons_and_messages_are_spelt_in_one_module() -> None:
    words = {value: name for name, value in spelt_once().items()}
    again = {
        f"{path.relative_to(ROOT)}: {word!r} is names.{words[word]}"
        for path in SOURCES
        if path not in (NAMES, *TYPES)
        for word in literals(path) & words.keys()
    }
    assert again == set()


def test_one_module_each_counts_cores_binds_ports_locks_and_publishes_files() -> None:
    one_place = {
        r"sched_getaffinity|cpu_count\(": {"machine/cgroup.py"},
        r"\bflock\(": {"machine/locks.py", "machine/checks.py"},  # the latter: what another process sees
        r"['\"]127\.0\.0\.1['\"]": {"machine/ports.py"},
        r"(?m)^MIB =": {"machine/usage.py"},
        r"%Y-%m-%dT%H:%M:%SZ": {"kube/moments.py"},
        r"ip_local_port_range": {"machine/ports.py"},
        r"Path\.home\(\)": {"machine/home.py"},
    }
    for pattern, expected in one_place.items():
        found = {
            path.relative_to(ROOT / "platform/trainserve").as_posix()
            for path in SOURCES
            if re.search(pattern, path.read_text(encoding="utf-8"))
        }
        assert found == expected, pattern


def test_every_dependency_is_imported_somewhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["train"], *extras["serve"], *extras["export"]]
    wanted = {re.split(r"[>=<\[]", line)[0] for line in lines}
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*SOURCES, *(ROOT / "handlers").glob("*.py")])
    unused = {name for name in wanted if not re.search(rf"\b{re.escape(MODULES.get(name, name))}\b", text)}
    assert unused == set()
