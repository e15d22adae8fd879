"""Amounts, what pods ask for, and what the nodes lack."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from trainserve.kube import quantity
from trainserve.kube import room as room_module
from trainserve.kube.requests import pod_requests
from trainserve.kube.room import NodeRoom, lacking, node_room

GPU = "nvidia.com/gpu"


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        (2, 2),
        ("2", 2),
        ("500m", Fraction(1, 2)),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("2.", 2),
        ("1Ki", 1024),
        ("64Gi", 64 * 2**30),
        ("1k", 1000),
        ("3M", 3 * 10**6),
        ("1e3", 1000),
        ("2E-1", Fraction(1, 5)),
        ("1E", 10**18),
        ("5u", Fraction(5, 10**6)),
        ("7n", Fraction(7, 10**9)),
        ("-1", -1),
    ],
)
def test_amounts_are_read_exactly(text: str | int, amount: Fraction | int) -> None:
    assert quantity.parse(text) == amount


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1gi", "1e999", "--1", "1.2.3", "٣", None])
def test_what_is_no_amount_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        quantity.parse(text)


@pytest.mark.parametrize(
    ("resource", "amount", "shown", "written"),
    [
        (GPU, Fraction(4), "4 x nvidia.com/gpu", "4"),
        ("cpu", Fraction(3, 2), "1.5 cpu", "1500m"),
        ("cpu", Fraction(1, 3), "0.3 cpu", "334m"),
        ("memory", Fraction(64 * 2**30), "64 GiB memory", str(64 * 2**30)),
        ("memory", Fraction(2**30 * 3, 2), "1.5 GiB memory", str(2**29 * 3)),
        ("memory", Fraction(100), "100 B memory", "100"),
        ("pods", Fraction(2), "2 x pods", "2"),
    ],
)
def test_amounts_in_words_and_for_the_server(resource: str, amount: Fraction, shown: str, written: str) -> None:
    assert quantity.shown(resource, amount) == shown
    assert quantity.written(amount) == written


def test_a_pod_asks_for_its_containers_together_or_for_its_largest_init_container() -> None:
    spec = {
        "containers": [
            {"resources": {"limits": {"cpu": "2", GPU: 1}, "requests": {"cpu": "1"}}},
            {"resources": {"requests": {"cpu": "500m"}}},
            {},
        ],
        "initContainers": [{"resources": {"requests": {"cpu": "4", "memory": "1Gi"}}}],
        "overhead": {"cpu": "100m"},
    }
    assert pod_requests(spec) == {
        "cpu": Fraction(41, 10),
        "memory": 2**30,
        GPU: 1,
        "pods": 1,
    }


def _node(name: str = "n", *, taints: Any = None, labels: Any = None, used: Any = None, **allocatable: Any) -> NodeRoom:
    node = {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"taints": taints or []},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"pods": "10", "cpu": "4", **{key.replace("gpu", GPU): v for key, v in allocatable.items()}},
        },
    }
    found = node_room(node, used or {})
    assert found is not None
    return found


def _spec(gpus: int = 1, cpu: str = "1", **more: Any) -> dict[str, Any]:
    return {"containers": [{"resources": {"limits": {GPU: gpus, "cpu": cpu}}}], **more}


def test_more_than_all_nodes_have_is_told_by_resource() -> None:
    room = tuple(_node(gpu=1) for _ in range(3))
    assert lacking(room, [_spec()] * 4) == "needs 4 x nvidia.com/gpu, 3 free"
    assert lacking(room, [_spec(cpu="4")] * 4) == "needs 16 cpu, 12 free; needs 4 x nvidia.com/gpu, 3 free"
    assert lacking(room, [_spec()] * 3) is None


def test_what_other_pods_have_is_not_free() -> None:
    assert lacking((_node(gpu=2, used={GPU: Fraction(1)}),), [_spec(), _spec()]) == "needs 2 x nvidia.com/gpu, 1 free"
    assert "0 free" in str(lacking((_node(gpu=1, used={GPU: Fraction(5)}),), [_spec()]))


def test_enough_in_all_but_not_on_single_nodes() -> None:
    room = tuple(_node(gpu=3) for _ in range(2))
    said = lacking(room, [_spec(2)] * 3)
    assert said == (
        "there is enough in all, but single nodes have room for 2 of 3 pods (each: 1 cpu, 2 x nvidia.com/gpu)"
    )


def test_pods_of_two_kinds_are_fitted_each_on_the_nodes_that_take_them() -> None:
    tainted = [{"key": "gpu", "effect": "NoSchedule"}]
    room = (_node(gpu=3, taints=tainted), _node(gpu=3), _node(gpu=3, labels={"zone": "a"}))
    tolerant = _spec(2, tolerations=[{"operator": "Exists"}])
    assert lacking(room, [tolerant, _spec(2, nodeSelector={"zone": "a"}), tolerant]) is None
    said = lacking(room, [tolerant, _spec(2, nodeSelector={"zone": "a"}), tolerant, tolerant])
    assert "single nodes have room for 3 of 4 pods" in str(said)


def test_a_large_gang_costs_one_look_at_each_node(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    takes = room_module._takes

    def counted(node: NodeRoom, spec: dict[str, Any]) -> bool:
        nonlocal looks
        looks += 1
        return takes(node, spec)

    monkeypatch.setattr(room_module, "_takes", counted)
    room = tuple(_node(gpu=3, cpu="8") for _ in range(50))
    rank = [{**_spec(2), "hostname": f"worker-{index}"} for index in range(70)]
    assert "single nodes have room for 50 of 70 pods" in str(lacking(room, rank))
    assert looks == 100  # whether it counts, and how many it takes


@pytest.mark.parametrize(
    ("node", "spec", "usable"),
    [
        ({"taints": [{"key": "gpu", "effect": "NoSchedule"}]}, {}, False),
        ({"taints": [{"key": "gpu", "effect": "PreferNoSchedule"}]}, {}, True),
        (
            {"taints": [{"key": "gpu", "effect": "NoSchedule"}]},
            {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
            True,
        ),
        (
            {"taints": [{"key": "gpu", "value": "a", "effect": "NoSchedule"}]},
            {"tolerations": [{"key": "gpu", "value": "a", "effect": "NoSchedule"}]},
            True,
        ),
        (
            {"taints": [{"key": "gpu", "value": "a", "effect": "NoSchedule"}]},
            {"tolerations": [{"key": "gpu", "value": "b"}]},
            False,
        ),
        (
            {"taints": [{"key": "gpu", "effect": "NoSchedule"}]},
            {"tolerations": [{"operator": "Exists", "effect": "NoExecute"}]},
            False,
        ),
        ({"taints": [{"key": "gpu", "effect": "NoExecute"}]}, {"tolerations": [{"operator": "Exists"}]}, True),
        ({"labels": {"zone": "a"}}, {"nodeSelector": {"zone": "a"}}, True),
        ({"labels": {"zone": "a"}}, {"nodeSelector": {"zone": "b"}}, False),
    ],
)
def test_nodes_that_the_pods_cannot_go_to_do_not_count(
    node: dict[str, Any], spec: dict[str, Any], usable: bool
) -> None:
    said = lacking((_node(gpu=1, **node),), [_spec(**spec)])
    assert (said is None) == usable
    if not usable:
        assert said is not None
        assert "no node takes such pods" in said


@pytest.mark.parametrize(
    "broken",
    [
        {"spec": {"unschedulable": True}},
        {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
        {"status": {}},
    ],
)
def test_a_node_that_is_cordoned_or_not_ready_has_no_room(broken: dict[str, Any]) -> None:
    node = {"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert node_room(node, {}) is not None
    assert node_room({**node, **broken}, {}) is None
