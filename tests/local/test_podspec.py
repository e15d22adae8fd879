"""From a Pod to processes: substitution of addresses, references, what is told and what refused."""

from __future__ import annotations

from typing import Any

import pytest

from trainserve.kube import names
from trainserve.local import podspec
from trainserve.local.podspec import CannotRun

ADDRESS = podspec.address("j", "local", 20_001)


@pytest.mark.parametrize(
    ("name", "value", "becomes"),
    [
        ("MASTER_ADDR", "j-master-0", "127.0.0.1"),
        ("PET_MASTER_ADDR", "j-worker-0.local.svc", "127.0.0.1"),
        ("MASTER_PORT", "23456", "20001"),
        ("PET_MASTER_PORT", "23456", "20001"),
        ("PET_RDZV_ENDPOINT", "j-worker-0:23456", "127.0.0.1:20001"),
        ("TRAINSERVE_WAIT_FOR", "j-master-0:23456", "127.0.0.1:20001"),
        ("MASTER_ADDR", "k-master-0", "k-master-0"),
        ("PET_RDZV_ENDPOINT", "etcd.example:2379", "etcd.example:2379"),
        ("MY_ADDR", "j-master-0", "j-master-0"),
        ("MY_PORT", "23456", "23456"),
    ],
)
def test_exactly_the_address_variables_are_substituted(name: str, value: str, becomes: str) -> None:
    assert podspec.substitute(name, value, ADDRESS) == becomes


@pytest.mark.parametrize(
    ("text", "becomes"), [("$(A)", "1"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("$A $ x$", "$A $ x$"), ("$$$(A)", "$1")]
)
def test_references(text: str, becomes: str) -> None:
    assert podspec.expand(text, {"A": "1"}) == becomes


def test_environment_of_another_job_is_not_inherited() -> None:
    base = {"PATH": "/bin", "RANK": "3", "RANKING": "x", "LOCAL_RANK": "0", "PET_NNODES": "9", "TRAINSERVE_HOME": "/h"}
    assert podspec.inherited(base) == {"PATH": "/bin", "RANKING": "x"}


def job(env: dict[str, str] | None = None, port: int = names.PORT) -> dict[str, Any]:
    container = {
        "name": "pytorch",
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "ports": [{"name": names.PORT_NAME, "containerPort": port}],
    }
    return {"spec": {"pytorchReplicaSpecs": {"Worker": {"template": {"spec": {"containers": [container]}}}}}}


def test_the_users_own_port() -> None:
    assert podspec.asked_port(job()) is None
    assert podspec.asked_port(job(port=29_500)) == 29_500
    assert podspec.asked_port(job({"MASTER_PORT": "29501"})) == 29_501
    with pytest.raises(CannotRun, match="'x' is not a port"):
        podspec.asked_port(job({"MASTER_PORT": "x"}))


def test_a_field_nobody_knows_is_refused() -> None:
    spec: dict[str, Any] = {"containers": [{"name": "c", "command": ["x"]}], "ephemeralContainers": [{"name": "d"}]}
    with pytest.raises(CannotRun, match="spec: ephemeralContainers is not supported on a laptop"):
        podspec.check({"spec": spec})
    sidecar = {"name": "s", "command": ["x"], "restartPolicy": "Always"}
    with pytest.raises(CannotRun, match="container s: restartPolicy is not supported"):
        podspec.check({"spec": {"containers": [{"name": "c", "command": ["x"]}], "initContainers": [sidecar]}})


def test_nothing_is_told_where_all_is_done() -> None:
    assert podspec.without_effect({"spec": {"containers": [{"name": "c", "command": ["x"], "resources": {}}]}}) == set()


def test_nobody_is_told_of_what_the_platform_itself_set() -> None:
    wait = {"name": names.INIT_CONTAINER, "image": names.LOCAL_IMAGE, "command": ["x"], "securityContext": {"a": 1}}
    main = {"name": names.CONTAINER, "image": names.LOCAL_IMAGE, "command": ["x"]}
    assert podspec.without_effect({"spec": {"initContainers": [wait], "containers": [main]}}) == set()
    theirs = {**main, "image": "theirs:1", "securityContext": {"a": 1}}
    assert podspec.without_effect({"spec": {"containers": [theirs]}}) == {"image", "securityContext"}
