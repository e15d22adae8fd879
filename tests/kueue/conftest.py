"""Beside the real Kueue, on a control plane of their own: `make test-kueue`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kubectl import Kubectl
from support.kueue import Kueue
from support.nodeprocess import AddNode, added_nodes
from support.operating import Operator, operating
from support.testserver import OwnServer

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    found = OwnServer(tmp_path_factory.mktemp("kueue"))
    found.start()
    kueue = Kueue(found.control_plane, tmp_path_factory.mktemp("kueue-process"))
    try:
        kueue.start()
        yield found
    finally:
        kueue.stop()
        found.stop()


@pytest.fixture
def kubectl(server: OwnServer) -> Iterator[Kubectl]:
    """In a namespace of the test's own."""
    name = f"test-{secrets.token_hex(4)}"
    everywhere = Kubectl(server.server.kubeconfig)
    everywhere("create", "namespace", name)
    everywhere("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=30s")
    yield Kubectl(server.server.kubeconfig, name)
    everywhere("delete", "namespace", name, "--wait=false")


@pytest.fixture
def add_node(kubectl: Kubectl, tmp_path: Path) -> Iterator[AddNode]:
    yield from added_nodes(kubectl, tmp_path)


@pytest.fixture
def operator(kubectl: Kubectl, tmp_path: Path) -> Iterator[Operator]:
    yield from operating(kubectl, tmp_path)
