"""Options of the whole test suite."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

CLUSTER_TESTS = tuple(
    Path(__file__).parent / folder for folder in ("cluster", "kueue", "kubeflow", "node", "images/real")
)


def pytest_configure() -> None:
    # A shell ignores SIGINT for what it runs in the background, and children inherit that: Ctrl-C could not be tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden/<case>/out.yaml, then read the diff"
    )
    parser.addoption(
        "--api-server",
        metavar="KUBECONFIG",
        help="run tests/conformance against this API server; `shared`: against that of tests/cluster",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What needs a real API server, or builds images, runs where it is asked for: pytest tests/cluster, tests/kueue."""
    if collection_path not in CLUSTER_TESTS:
        return None
    asked = [Path(config.invocation_params.dir, str(word).split("::")[0]).resolve() for word in config.args]
    return None if any(collection_path in {path, *path.parents} for path in asked) else True


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes begin first, so that none of them is left alone at the end of a parallel run."""
    long = {"test_docs.py", "test_fit.py", "test_fit_four.py"}
    items.sort(key=lambda item: not (item.path.parent.name == "e2e" or item.path.name in long))
