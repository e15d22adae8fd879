"""Lists, pages, label selection, watches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from support.server import changes, job, names_of, pod, service
from trainserve.kube.cluster import BadRequest, Cluster, Gone
from trainserve.kube.names import POD, PYTORCHJOB, SERVICE, Kind


async def test_a_list_is_ordered_by_name(cluster: Cluster, namespace: str) -> None:
    for name in ("c", "a", "b"):
        await cluster.create(POD, namespace, pod(name))
    page = await cluster.list(POD, namespace)
    assert names_of(page.items) == ["a", "b", "c"]
    assert page.continue_token == ""


async def test_listed_objects_say_what_they_are(cluster: Cluster, namespace: str) -> None:
    created = await cluster.create(POD, namespace, pod("a"))
    assert (await cluster.list(POD, namespace)).items == [created]


async def test_a_list_keeps_to_its_namespace(cluster: Cluster, namespace: str) -> None:
    await cluster.create(POD, namespace, pod("a"))
    assert (await cluster.list(POD, f"{namespace}-other")).items == []
    everywhere = await cluster.list(POD, None)
    assert (namespace, "a") in [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in everywhere.items]


async def test_labels_must_all_match(cluster: Cluster, namespace: str) -> None:
    await cluster.create(POD, namespace, pod("a", labels={"x": "1", "y": "1"}))
    await cluster.create(POD, namespace, pod("b", labels={"x": "1", "y": "2"}))
    await cluster.create(POD, namespace, pod("c"))
    selected = [
        (await cluster.list(POD, namespace, labels=labels)).items for labels in ({"x": "1"}, {"x": "1", "y": "2"})
    ]
    assert [names_of(items) for items in selected] == [["a", "b"], ["b"]]


async def test_fields_must_all_match(cluster: Cluster, namespace: str) -> None:
    for name in ("a", "b"):
        manifest = pod(name)
        manifest["spec"] = {**manifest["spec"], "nodeName": f"{namespace}-{name}"}
        await cluster.create(POD, namespace, manifest)
    await cluster.create(POD, namespace, pod("c"))

    async def found(**fields: str) -> list[str]:
        selected = {path.replace("_", "."): value for path, value in fields.items()}
        return names_of((await cluster.list(POD, namespace, fields=selected)).items)

    assert await found(spec_nodeName=f"{namespace}-b") == ["b"]
    assert await found(spec_nodeName="") == ["c"]
    assert await found(metadata_name="a", spec_nodeName=f"{namespace}-a") == ["a"]
    assert await found(metadata_name="a", spec_nodeName=f"{namespace}-b") == []
    assert await found(status_phase="Pending") == ["a", "b", "c"]


async def test_a_field_that_nothing_is_selected_by_is_a_bad_request(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(BadRequest, match=r"spec\.priority"):
        await cluster.list(POD, namespace, fields={"spec.priority": "0"})
    with pytest.raises(BadRequest, match=r"spec\.nodeName"):
        await cluster.list(SERVICE, namespace, fields={"spec.nodeName": "n"})


async def test_a_watch_by_fields_sees_what_begins_and_stops_to_match(cluster: Cluster, namespace: str) -> None:
    version = (await cluster.list(POD, namespace)).resource_version
    for name in ("a", "b"):
        await cluster.create(POD, namespace, pod(name))
    await cluster.patch(POD, namespace, "a", {"status": {"phase": "Running"}}, subresource="status")
    await cluster.patch(POD, namespace, "a", {"status": {"phase": "Succeeded"}}, subresource="status")
    found = await changes(cluster, POD, namespace, version, 2, fields={"status.phase": "Running"})
    assert [(change.type, change.object["metadata"]["name"]) for change in found] == [("ADDED", "a"), ("DELETED", "a")]


async def test_pages_hold_every_object_once(cluster: Cluster, namespace: str) -> None:
    for index in range(5):
        await cluster.create(POD, namespace, pod(f"a{index}"))
    pages, token = [], ""
    while not pages or token:
        page = await cluster.list(POD, namespace, limit=2, continue_token=token)
        pages.append(names_of(page.items))
        token = page.continue_token
    assert pages == [["a0", "a1"], ["a2", "a3"], ["a4"]]


async def test_a_page_as_long_as_the_list_is_the_last(cluster: Cluster, namespace: str) -> None:
    for name in ("a", "b"):
        await cluster.create(POD, namespace, pod(name))
    assert (await cluster.list(POD, namespace, limit=2)).continue_token == ""


async def test_pages_show_one_moment(cluster: Cluster, namespace: str) -> None:
    for name in ("a", "b", "c"):
        await cluster.create(POD, namespace, pod(name))
    first = await cluster.list(POD, namespace, limit=1)
    await cluster.delete(POD, namespace, "c")
    await cluster.create(POD, namespace, pod("d"))
    rest = await cluster.list(POD, namespace, limit=5, continue_token=first.continue_token)
    assert names_of(rest.items) == ["b", "c"]
    assert rest.resource_version == first.resource_version


async def test_pages_keep_the_selection(cluster: Cluster, namespace: str) -> None:
    for index in range(4):
        await cluster.create(POD, namespace, pod(f"a{index}", labels={"odd": str(index % 2)}))
    first = await cluster.list(POD, namespace, labels={"odd": "1"}, limit=1)
    rest = await cluster.list(POD, namespace, labels={"odd": "1"}, limit=1, continue_token=first.continue_token)
    assert names_of(first.items + rest.items) == ["a1", "a3"]


async def test_a_forgotten_page_is_gone(cluster: Cluster, namespace: str, compact: Callable[[Cluster], None]) -> None:
    for name in ("a", "b"):
        await cluster.create(POD, namespace, pod(name))
    first = await cluster.list(POD, namespace, limit=1)
    await cluster.create(POD, namespace, pod("c"))
    compact(cluster)
    with pytest.raises(Gone):
        await cluster.list(POD, namespace, limit=1, continue_token=first.continue_token)


async def test_a_token_of_nobody_is_refused(cluster: Cluster, namespace: str) -> None:
    with pytest.raises(BadRequest, match="continue"):
        await cluster.list(POD, namespace, limit=1, continue_token="nonsense")


async def test_a_watch_goes_on_from_a_list(cluster: Cluster, namespace: str) -> None:
    await cluster.create(POD, namespace, pod("before"))
    version = (await cluster.list(POD, namespace)).resource_version
    created = await cluster.create(POD, namespace, pod("a"))
    changed = await cluster.patch(POD, namespace, "a", {"metadata": {"labels": {"a": "1"}}})
    await cluster.delete(POD, namespace, "a")
    seen = await changes(cluster, POD, namespace, version, 3)
    assert [change.type for change in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert [change.object for change in seen[:2]] == [created, changed]


async def test_a_watch_sees_what_comes_later(cluster: Cluster, namespace: str) -> None:
    version = (await cluster.list(POD, namespace)).resource_version
    watching = asyncio.create_task(changes(cluster, POD, namespace, version, 2))
    await asyncio.sleep(0.05)
    for name in ("a", "b"):
        await cluster.create(POD, namespace, pod(name))
    assert names_of([change.object for change in await watching]) == ["a", "b"]


async def test_a_watch_keeps_the_order_of_writes(cluster: Cluster, namespace: str) -> None:
    version = (await cluster.list(POD, namespace)).resource_version
    await asyncio.gather(*(cluster.create(POD, namespace, pod(f"a{index}")) for index in range(10)))
    versions = [
        int(change.object["metadata"]["resourceVersion"])
        for change in await changes(cluster, POD, namespace, version, 10)
    ]
    assert versions == sorted(set(versions))


async def test_two_watches_see_the_same(cluster: Cluster, namespace: str) -> None:
    version = (await cluster.list(POD, namespace)).resource_version
    watches = [asyncio.create_task(changes(cluster, POD, namespace, version, 2)) for _ in range(2)]
    for name in ("a", "b"):
        await cluster.create(POD, namespace, pod(name))
    first, second = await asyncio.gather(*watches)
    assert first == second


async def test_a_watch_keeps_to_its_kind_and_namespace(cluster: Cluster, namespace: str) -> None:
    version = (await cluster.list(POD, namespace)).resource_version
    await cluster.create(SERVICE, namespace, service("a"))
    await cluster.create(PYTORCHJOB, namespace, job("a"))
    await cluster.create(POD, namespace, pod("a"))
    (seen,) = await changes(cluster, POD, namespace, version, 1)
    assert seen.object["kind"] == "Pod"


async def test_a_deletion_carries_the_last_state_and_a_new_version(cluster: Cluster, namespace: str) -> None:
    created = await cluster.create(POD, namespace, pod("a", labels={"a": "1"}))
    await cluster.delete(POD, namespace, "a")
    (seen,) = await changes(cluster, POD, namespace, created["metadata"]["resourceVersion"], 1)
    assert (seen.type, seen.object["spec"], seen.object["metadata"]["labels"]) == (
        "DELETED",
        created["spec"],
        {"a": "1"},
    )
    assert int(seen.object["metadata"]["resourceVersion"]) > int(created["metadata"]["resourceVersion"])


async def test_a_watch_can_begin_at_a_deletion(cluster: Cluster, namespace: str) -> None:
    created = await cluster.create(POD, namespace, pod("a"))
    await cluster.delete(POD, namespace, "a")
    (deleted,) = await changes(cluster, POD, namespace, created["metadata"]["resourceVersion"], 1)
    await cluster.create(POD, namespace, pod("b"))
    (seen,) = await changes(cluster, POD, namespace, deleted.object["metadata"]["resourceVersion"], 1)
    assert (seen.type, seen.object["metadata"]["name"]) == ("ADDED", "b")


async def test_what_begins_to_match_is_added_and_what_ceases_to_is_deleted(cluster: Cluster, namespace: str) -> None:
    version = (await cluster.list(POD, namespace)).resource_version
    await cluster.create(POD, namespace, pod("a"))
    for value in ("1", "2", None):
        await cluster.patch(POD, namespace, "a", {"metadata": {"labels": {"x": "y" if value else None, "v": value}}})
    last = (await cluster.get(POD, namespace, "a"))["metadata"]["resourceVersion"]
    seen = await changes(cluster, POD, namespace, version, 3, labels={"x": "y"})
    assert [change.type for change in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert seen[2].object["metadata"]["labels"] == {"x": "y", "v": "2"}
    assert seen[2].object["metadata"]["resourceVersion"] == last


async def test_a_watch_without_a_version_begins_with_what_exists(cluster: Cluster, namespace: str) -> None:
    await cluster.create(POD, namespace, pod("a"))
    await cluster.create(POD, namespace, pod("b"))
    seen = await changes(cluster, POD, namespace, "", 2)
    assert [change.type for change in seen] == ["ADDED", "ADDED"]
    assert sorted(names_of([change.object for change in seen])) == ["a", "b"]


async def test_a_watch_ends_by_itself_with_a_bookmark(
    cluster: Cluster, namespace: str, bookmark_within_s: float
) -> None:
    await cluster.create(POD, namespace, pod("a"))
    listed = await cluster.list(POD, namespace)
    await cluster.create(SERVICE, namespace, service("a"))
    seen = [
        event
        async for event in cluster.watch(
            POD, namespace, resource_version=listed.resource_version, timeout_s=bookmark_within_s
        )
    ]
    assert {event.type for event in seen} == {"BOOKMARK"}
    assert int(seen[-1].object["metadata"]["resourceVersion"]) >= int(listed.resource_version)
    assert "spec" not in seen[-1].object or not seen[-1].object["spec"].get("containers")


async def test_a_watch_from_a_forgotten_version_is_gone(
    cluster: Cluster, namespace: str, compact: Callable[[Cluster], None]
) -> None:
    created = await cluster.create(POD, namespace, pod("a"))
    await cluster.create(POD, namespace, pod("b"))
    compact(cluster)
    with pytest.raises(Gone):
        await changes(cluster, POD, namespace, created["metadata"]["resourceVersion"], 1)


async def test_a_server_says_which_kinds_it_serves(cluster: Cluster) -> None:
    assert await cluster.serves(POD)
    assert await cluster.serves(PYTORCHJOB)
    assert not await cluster.serves(Kind("", "v1", "Pot", "pots"))
    assert not await cluster.serves(Kind("kubeflow.org", "v7", "PyTorchJob", "pytorchjobs"))
    assert not await cluster.serves(Kind("nobody.example.com", "v1", "PyTorchJob", "pytorchjobs"))
