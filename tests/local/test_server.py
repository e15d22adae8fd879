"""The server in memory, beyond what every server does: binding, snapshots, history, expiry."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.server import NODE, changes, event, job, names_of, owner_reference, pod, service
from trainserve.kube.cluster import ApiError, BadRequest, Conflict, Gone, Invalid, NotFound
from trainserve.kube.names import EVENT, LOCAL_NAMESPACE, POD, PYTORCHJOB, SERVICE
from trainserve.local.patch import merge
from trainserve.local.server import MemoryCluster
from trainserve.local.store import copy_json


class Clock:
    """Stands still unless it is moved."""

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def numbered() -> Any:
    count = iter(range(1, 1000))
    return lambda: f"uid-{next(count)}"


def test_times_and_uids_are_injected() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster(Clock(), numbered())
        metadata = (await cluster.create(POD, "a", pod("p")))["metadata"]
        assert (metadata["uid"], metadata["creationTimestamp"]) == ("uid-1", "2001-09-09T01:46:40Z")

    asyncio.run(scenario())


def test_a_grace_period_ends_by_the_clock() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster(Clock(), numbered())
        await cluster.create(POD, "a", pod("p", nodeName=NODE))
        await cluster.delete(POD, "a", "p", grace_period_s=80)
        metadata = (await cluster.get(POD, "a", "p"))["metadata"]
        assert metadata["deletionTimestamp"] == "2001-09-09T01:48:00Z"

    asyncio.run(scenario())


def test_binding_gives_a_pod_its_node_once() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster(Clock())
        await cluster.create(POD, "a", pod("p"))
        bound = await cluster.bind("a", "p", "here")
        assert bound["spec"]["nodeName"] == "here"
        assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [("PodScheduled", "True")]
        assert bound == await cluster.get(POD, "a", "p")
        with pytest.raises(Conflict, match="already assigned to node here"):
            await cluster.bind("a", "p", "there")
        with pytest.raises(NotFound):
            await cluster.bind("a", "other", "here")

    asyncio.run(scenario())


def test_a_service_may_not_begin_with_a_digit() -> None:
    # Newer API servers relax this behind a gate; names of ours must suit older ones too.
    with pytest.raises(Invalid, match="DNS-1035"):
        asyncio.run(MemoryCluster().create(SERVICE, "a", service("1st")))


def test_a_service_without_ports_must_be_headless() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster()
        await cluster.create(SERVICE, "a", service("headless", ports=None))
        with pytest.raises(Invalid, match=r"spec\.ports: Required"):
            await cluster.create(SERVICE, "a", service("other", ports=None, clusterIP=None))

    asyncio.run(scenario())


def test_several_ports_need_names_that_differ() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster()
        for ports in ([{"port": 1}, {"port": 2}], [{"name": "a", "port": 1}, {"name": "a", "port": 2}]):
            with pytest.raises(Invalid, match=r"spec\.ports\[\d\]\.name"):
                await cluster.create(SERVICE, "a", service("s", ports=ports))

    asyncio.run(scenario())


def test_all_complaints_come_together() -> None:
    sent = pod("A", containers=[{"name": "b"}], restartPolicy="Sometimes")
    with pytest.raises(Invalid) as caught:
        asyncio.run(MemoryCluster().create(POD, "a", sent))
    for path in ("metadata.name", "spec.containers[0].image", "spec.restartPolicy"):
        assert path in caught.value.message


@pytest.mark.parametrize("body", [None, [], "x", {"apiVersion": "v1", "kind": "Pod", "metadata": "x"}])
def test_a_body_that_is_no_object(body: Any) -> None:
    with pytest.raises(BadRequest):
        asyncio.run(MemoryCluster().create(POD, "a", body))


@pytest.mark.parametrize(
    "change", [{"spec": None}, {"spec": []}, {"spec": {"containers": [None]}}, {"metadata": {"name": 1}}]
)
def test_odd_pods_are_refused_not_a_crash(change: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        asyncio.run(MemoryCluster().create(POD, "a", {**pod("p"), **change}))


@pytest.mark.parametrize(
    "spec",
    [None, [], {}, {"pytorchReplicaSpecs": None}, {"pytorchReplicaSpecs": {"Master": None}}, {"runPolicy": 3}],
)
def test_odd_jobs_are_refused_not_a_crash(spec: Any) -> None:
    with pytest.raises(Invalid, match="spec"):
        asyncio.run(MemoryCluster().create(PYTORCHJOB, "a", {**job("j"), "spec": spec}))


def test_what_json_cannot_carry_is_a_bug_of_the_caller() -> None:
    with pytest.raises(TypeError, match="JSON"):
        asyncio.run(MemoryCluster().create(POD, "a", pod("p", nodeSelector={"a": object()})))


def test_the_history_is_bounded() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster(history=3)
        versions = [
            (await cluster.create(POD, "a", pod(f"p{index}")))["metadata"]["resourceVersion"] for index in range(5)
        ]
        assert names_of([change.object for change in await changes(cluster, POD, "a", versions[1], 3)]) == [
            "p2",
            "p3",
            "p4",
        ]
        with pytest.raises(Gone):
            await changes(cluster, POD, "a", versions[0], 1)

    asyncio.run(scenario())


def test_a_version_of_the_future_is_refused() -> None:
    with pytest.raises(ApiError, match="Too large resource version") as caught:
        asyncio.run(changes(MemoryCluster(), POD, "a", "99", 1))
    assert caught.value.status == 504


def test_a_version_that_is_no_number_is_refused() -> None:
    with pytest.raises(BadRequest, match="resourceVersion"):
        asyncio.run(changes(MemoryCluster(), POD, "a", "abc", 1))


def test_bookmarks_come_at_intervals_and_last() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster(bookmark_s=0.05)
        version = (await cluster.list(POD, "a")).resource_version
        seen = []
        async for change in cluster.watch(POD, "a", resource_version=version, timeout_s=0.5):
            seen.append(change)
            if len(seen) == 1:
                await cluster.create(SERVICE, "a", service("s"))
        assert {change.type for change in seen} == {"BOOKMARK"}
        assert len(seen) >= 3
        versions = [int(change.object["metadata"]["resourceVersion"]) for change in seen]
        assert versions == [int(version)] + [int(version) + 1] * (len(seen) - 1)

    asyncio.run(scenario())


def test_an_abandoned_watch_leaves_nothing() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster()
        await cluster.create(POD, "a", pod("p"))
        await changes(cluster, POD, "a", "0", 1)
        assert not cluster._store._subscribers

    asyncio.run(scenario())


def test_events_expire_after_an_hour() -> None:
    async def scenario() -> None:
        clock = Clock()
        cluster = MemoryCluster(clock)
        await cluster.create(EVENT, "a", event("old", "a"))
        await cluster.create(EVENT, "a", event("again", "a", lastTimestamp="2001-09-09T02:16:40Z"))
        await cluster.create(POD, "a", pod("p"))
        clock.now += 3601
        await cluster.create(EVENT, "a", event("new", "a"))
        assert names_of((await cluster.list(EVENT, "a")).items) == ["again", "new"]
        assert names_of((await cluster.list(POD, "a")).items) == ["p"]

    asyncio.run(scenario())


def test_the_hook_is_called_after_every_write_and_only_then() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster()
        seen: list[list[str]] = []
        cluster.on_change = lambda: seen.append(names_of(cluster.snapshot()["objects"]))
        await cluster.create(POD, "a", pod("p"))
        await cluster.patch(POD, "a", "p", {})
        await cluster.list(POD, "a")
        await cluster.patch(POD, "a", "p", {"metadata": {"labels": {"a": "b"}}})
        await cluster.delete(POD, "a", "p")
        assert seen == [["p"], ["p"], []]

    asyncio.run(scenario())


def test_a_restored_server_goes_on() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster()
        owner = await cluster.create(PYTORCHJOB, "a", job("j"))
        version = (await cluster.create(POD, "a", pod("p", owner=owner)))["metadata"]["resourceVersion"]
        restored = MemoryCluster.restore(json.loads(json.dumps(cluster.snapshot())), history=8)
        assert await restored.get(PYTORCHJOB, "a", "j") == owner
        with pytest.raises(Gone):
            await changes(restored, POD, "a", owner["metadata"]["resourceVersion"], 1)
        await restored.delete(PYTORCHJOB, "a", "j")
        (gone,) = await changes(restored, POD, "a", version, 1)
        assert gone.type == "DELETED"

    asyncio.run(scenario())


def test_a_snapshot_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 2"):
        MemoryCluster.restore({"format": 2, "resourceVersion": 1, "objects": []})


def test_an_owner_of_a_kind_not_kept_here_is_taken_to_exist() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster()
        foreign = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "uid": "u"}}
        await cluster.create(POD, "a", pod("p", owner=foreign))
        assert (await cluster.get(POD, "a", "p"))["metadata"]["ownerReferences"] == [owner_reference(foreign)]

    asyncio.run(scenario())


def test_collection_goes_down_a_chain() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster()
        owner = await cluster.create(PYTORCHJOB, "a", job("j"))
        middle = await cluster.create(POD, "a", pod("middle", owner=owner))
        await cluster.create(POD, "a", pod("last", owner=middle))
        await cluster.delete(PYTORCHJOB, "a", "j")
        assert (await cluster.list(POD, "a")).items == []

    asyncio.run(scenario())


# RFC 7396, appendix A: original, patch, result.
@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_by_its_rfc(original: Any, patch: Any, result: Any) -> None:
    assert merge(original, patch) == result


leaves = st.none() | st.booleans() | st.integers(0, 9) | st.text("abc", max_size=2)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4)
)


@given(values, values)
def test_merge_patch_is_idempotent_and_changes_no_argument(target: Any, patch: Any) -> None:
    before = copy_json(target), copy_json(patch)
    once = merge(target, patch)
    assert merge(once, patch) == once
    assert (target, patch) == before


operations = st.lists(
    st.tuples(st.sampled_from(["create", "label", "run", "end", "delete", "kill"]), st.sampled_from(["a", "b", "c"])),
    max_size=20,
)


@given(operations)
def test_a_snapshot_restored_is_the_same(steps: list[tuple[str, str]]) -> None:
    async def scenario() -> None:
        cluster = MemoryCluster(Clock(), numbered())
        await apply(cluster, steps)
        text = json.dumps(cluster.snapshot())
        restored = MemoryCluster.restore(json.loads(text))
        assert restored.snapshot() == json.loads(text)
        for kind in (POD, PYTORCHJOB):
            assert await restored.list(kind, None) == await cluster.list(kind, None)

    asyncio.run(scenario())


@given(operations, st.integers(1, 21))
def test_any_watch_leads_to_the_state_of_now(steps: list[tuple[str, str]], start: int) -> None:
    async def scenario() -> None:
        cluster = MemoryCluster(Clock(), numbered())
        await apply(cluster, steps[:start])
        page = await cluster.list(POD, LOCAL_NAMESPACE)
        state = {item["metadata"]["name"]: item for item in page.items}
        await apply(cluster, steps[start:])
        async for change in cluster.watch(POD, LOCAL_NAMESPACE, resource_version=page.resource_version, timeout_s=0.0):
            name = change.object["metadata"].get("name")
            if change.type == "ADDED":
                assert name not in state
            if change.type in ("ADDED", "MODIFIED"):
                state[name] = change.object
            elif change.type == "DELETED":
                del state[name]
        assert [state[name] for name in sorted(state)] == (await cluster.list(POD, LOCAL_NAMESPACE)).items

    asyncio.run(scenario())


async def apply(cluster: MemoryCluster, steps: list[tuple[str, str]]) -> None:
    """Whatever the server allows of these."""
    for verb, name in steps:
        try:
            if verb == "create":
                owner = await cluster.create(PYTORCHJOB, LOCAL_NAMESPACE, job(name))
                await cluster.create(POD, LOCAL_NAMESPACE, pod(name, owner=owner))
            elif verb == "label":
                await cluster.patch(POD, LOCAL_NAMESPACE, name, {"metadata": {"labels": {"a": name}}})
            elif verb == "run":
                await cluster.bind(LOCAL_NAMESPACE, name, NODE)
            elif verb == "end":
                patch = {"status": {"phase": "Succeeded"}}
                await cluster.patch(POD, LOCAL_NAMESPACE, name, patch, subresource="status")
            elif verb == "delete":
                await cluster.delete(PYTORCHJOB, LOCAL_NAMESPACE, name)
            else:
                await cluster.delete(POD, LOCAL_NAMESPACE, name, grace_period_s=0)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
