"""Tests on one real node: containers, their network and limits, and the operator as pods: `make test-node`.

Root only. They share a cluster and run one after the other, since the machine has room for one training.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import nodebinaries
from support.command import platform
from support.nodecluster import NodeCluster, RunningCluster
from support.nodedigits import SHORT, succeeded, weights_digest
from support.nodeteam import NodeTeam, make_team, remove_team
from support.nodetraining import digits_folder
from trainserve.errors import EnvironmentProblem

HERE = Path(__file__).parent
MINUTES = 40
GIVEN = "TEST_NODE"  # kubeconfig of a cluster that tests/node/by_hand.py has started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(MINUTES * 60))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What the cluster says belongs to a failed test's report: it is gone when somebody reads that."""
    outcome: Any = yield
    report = outcome.get_result()
    found = getattr(item, "funcargs", {})
    if report.failed and isinstance(cluster := found.get("cluster"), RunningCluster):
        report.sections.append(("operators", cluster.operator_log()))
        if isinstance(team := found.get("team"), NodeTeam):
            report.sections.append(("cluster", team.described()))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RunningCluster]:
    """Control plane, node, and the operator installed by its chart."""
    given = os.environ.get(GIVEN)
    if given:
        yield RunningCluster(Path(given).absolute())
        return
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # the first time takes minutes, and says so
        try:
            nodebinaries.require_packages()
            found = NodeCluster(tmp_path_factory.mktemp("node"))
            found.start()
        except EnvironmentProblem as problem:
            pytest.exit(str(problem), returncode=3)
        try:
            found.install_operator()
        except BaseException:
            found.stop()
            raise
    yield found
    found.stop()


@pytest.fixture
def own_cluster(cluster: RunningCluster) -> NodeCluster:
    """The same, whose API server may be stopped."""
    if not isinstance(cluster, NodeCluster):
        pytest.skip(f"{GIVEN} names the cluster: its API server cannot be stopped from here")
    return cluster


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 1797 pictures of scanned digits."""
    folder = tmp_path_factory.mktemp("data")
    got = platform("data", "get", "digits", folder / "digits", home=folder)
    assert got.returncode == 0, got.stderr
    return folder / "digits"


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 pictures of each digit."""
    return digits_folder(tmp_path_factory.mktemp("few"))


@pytest.fixture
def make(cluster: RunningCluster) -> Iterator[Callable[..., NodeTeam]]:
    """`make(pictures)`: a namespace where only restricted pods run, with its claims; it is removed at the end."""
    made: list[NodeTeam] = []

    def team(pictures: Path | None = None) -> NodeTeam:
        made.append(make_team(cluster.kubectl, f"test-{secrets.token_hex(3)}", pictures))
        return made[-1]

    yield team
    for each in made:
        remove_team(each)


@pytest.fixture
def team(make: Callable[..., NodeTeam]) -> NodeTeam:
    """Such a namespace, without pictures."""
    return make()


@pytest.fixture(scope="session")
def wanted(cluster: RunningCluster, few_digits: Path) -> str:
    """The weights' digest of a short training that nobody disturbed."""
    team = make_team(cluster.kubectl, f"undisturbed-{secrets.token_hex(3)}", few_digits)
    try:
        team.said(*team.train("few", *SHORT), "--detach")
        succeeded(team, "few")
        return weights_digest(team, "few")
    finally:
        remove_team(team)
