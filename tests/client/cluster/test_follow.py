"""Wait for, stop, go on with, remove and follow runs of a cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from support.clusterruns import RUN, Played, until
from support.scenario import pytorchjob
from trainserve.client.cluster import events, follow, remove, stop
from trainserve.client.cluster.connect import Place
from trainserve.client.cluster.events import rows
from trainserve.client.cluster.follow import Teller
from trainserve.client.cluster.listing import listing
from trainserve.client.cluster.status import status
from trainserve.errors import EnvironmentProblem, RunFailed, TimedOut, UserError
from trainserve.kube import names
from trainserve.kube.cluster import ApiError, Forbidden, Manifest, NotFound
from trainserve.kube.names import PYTORCHJOB
from trainserve.kube.outage import NoAnswer, Unauthorized

T = TypeVar("T")
RUNS = {"running": {"startedAt": "2026-11-25T12:00:00Z"}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (follow, stop):
        monkeypatch.setattr(module, "LOOK_S", 0.02)


async def running() -> Played:
    world = Played()
    await world.create(workers=0)
    await world.conditions(names.CREATED, names.RUNNING, progress={"epoch": 1, "epochs": 4, "step": 5, "steps": 40})
    await world.pod()
    await world.container("flowers-master-0", RUNS)
    return world


async def in_background(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.create_task(work)
    await asyncio.sleep(0.05)
    return task


async def job(world: Played) -> Manifest:
    return await world.memory.get(PYTORCHJOB, "team", "flowers")


async def test_waiting_ends_as_on_a_laptop() -> None:
    world = await running()
    assert (await follow.wait(world.session, RUN, "Running", None))["state"] == names.RUNNING
    with pytest.raises(TimedOut, match="k8s://team/flowers is Running after 0s, not Succeeded"):
        await follow.wait(world.session, RUN, "Succeeded", 0.05)
    waiting = await in_background(follow.wait(world.session, RUN, "Succeeded", 10))
    await world.conditions(names.CREATED, names.FAILED, message="it broke")
    with pytest.raises(RunFailed, match="k8s://team/flowers is Failed, not Succeeded: it broke"):
        await waiting
    assert (await follow.wait(world.session, RUN, "Ended", 1))["state"] == names.FAILED
    assert (await follow.wait(world.session, RUN, "Failed", 1))["namespace"] == "team"


async def test_a_run_that_is_deleted_or_was_never_there_is_said_to_be() -> None:
    world = await running()
    waiting = await in_background(follow.wait(world.session, RUN, "Ended", 10))
    await world.memory.delete(PYTORCHJOB, "team", "flowers")
    with pytest.raises(EnvironmentProblem, match="k8s://team/flowers is no longer there: its PyTorchJob was deleted"):
        await waiting
    for work in (
        follow.wait(world.session, RUN, "Ended", 1),
        follow.outcome(world.session, RUN),
        status(world.session, RUN),
        stop.cancel(world.session, RUN),
        stop.resume(world.session, RUN),
        remove.remove(world.session, RUN),
    ):
        with pytest.raises(UserError, match="no such run 'flowers' in namespace team"):
            await work
    await world.create(name="flower")
    with pytest.raises(UserError, match="did you mean 'flower'"):
        await status(world.session, RUN)


async def test_cancel_suspends_with_its_reason_and_waits_until_the_pods_are_gone() -> None:
    world = await running()
    cancelling = await in_background(stop.cancel(world.session, RUN))
    found = await job(world)
    assert found["spec"]["runPolicy"]["suspend"] is True
    assert found["metadata"]["annotations"][names.ANNOTATION_SUSPEND_REASON] == names.SUSPEND_BY_USER
    assert not cancelling.done()
    await world.remove("flowers-master-0")
    await world.conditions(names.CREATED, names.SUSPENDED)
    assert (await cancelling)["state"] == names.SUSPENDED
    assert world.heard.said == ["stopping k8s://team/flowers after a checkpoint (Ctrl-C: do not wait)"]
    assert (await stop.cancel(world.session, RUN))["state"] == names.SUSPENDED
    assert world.heard.said[1:] == ["k8s://team/flowers is not running: Suspended"]


async def test_cancel_now_gives_the_pods_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await running()
    graces = []
    delete = world.memory.delete

    async def watched(*place: Any, **how: Any) -> None:
        graces.append(how.get("grace_period_s"))
        await delete(*place, **how)

    monkeypatch.setattr(world.memory, "delete", watched)
    cancelling = await in_background(stop.cancel(world.session, RUN, now=True))
    await until(lambda: graces == [stop.KILL_S], "the deletion")
    await world.conditions(names.CREATED, names.SUSPENDED)
    await cancelling


async def test_a_cancel_that_no_controller_acts_on_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "DEAF_S", 0.1)
    world = await running()
    with pytest.raises(EnvironmentProblem, match="no pod of it stops: no controller acts on it"):
        await stop.cancel(world.session, RUN)


async def test_pods_that_do_not_go_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "SLACK_S", -119.9)
    world = await running()
    await world.memory.patch(names.POD, "team", "flowers-master-0", {"metadata": {"annotations": {"a": "b"}}})
    monkeypatch.setattr(stop, "_patience_s", lambda watched: 0.1)
    with pytest.raises(TimedOut, match="flowers-master-0 on node-a"):
        await stop.cancel(world.session, RUN)


async def test_a_suspended_run_goes_on_and_one_that_goes_on_or_is_done_is_refused() -> None:
    world = await running()
    with pytest.raises(UserError, match="'k8s://team/flowers' is going on"):
        await stop.resume(world.session, RUN)
    suspended = {
        "spec": {"runPolicy": {"suspend": True}},
        "metadata": {"annotations": {names.ANNOTATION_SUSPEND_REASON: "x"}},
    }
    await world.memory.patch(PYTORCHJOB, "team", "flowers", suspended)
    await world.conditions(names.CREATED, names.SUSPENDED)
    found = await stop.resume(world.session, RUN)
    assert found["spec"]["runPolicy"]["suspend"] is False
    assert names.ANNOTATION_SUSPEND_REASON not in (found["metadata"].get("annotations") or {})
    await world.conditions(names.CREATED, names.SUCCEEDED)
    with pytest.raises(UserError, match="has succeeded; there is nothing to resume"):
        await stop.resume(world.session, RUN)


async def test_a_failed_run_gets_a_new_job_of_the_same_spec(home: Path) -> None:
    world = await running()
    await world.remove("flowers-master-0")
    await world.conditions(names.CREATED, names.FAILED, generation=3)
    before = await job(world)
    planned = await stop.plan(world.session, RUN)
    after = await stop.resume(world.session, RUN)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"] == before["spec"]
    assert planned["spec"]["pytorchReplicaSpecs"] == before["spec"]["pytorchReplicaSpecs"]
    assert after["metadata"]["annotations"] == {names.ANNOTATION_AFTER_GENERATION: "3"}
    assert "uid" not in planned["metadata"]
    assert "status" not in planned
    assert world.cluster.propagations == ["Foreground"]
    assert "a new job of the same name goes on from its checkpoint" in world.heard.said[0]
    assert len(world.heard.said) == 1
    assert not list((home / "resuming").iterdir())


async def test_a_failed_run_that_is_deleted_and_not_made_anew_is_not_lost(home: Path) -> None:
    world = await running()
    await world.conditions(names.CREATED, names.FAILED)
    planned = await stop.plan(world.session, RUN)
    resuming = await in_background(stop.resume(world.session, RUN))
    assert not resuming.done(), "a pod is still there"
    resuming.cancel()  # Ctrl-C
    with pytest.raises(asyncio.CancelledError):
        await resuming
    kept = home / "resuming" / "team.flowers.json"
    assert json.loads(kept.read_text()) == planned
    assert world.heard.said[-1].endswith(f"\n  kubectl --namespace=team create -f {kept}")


async def test_a_failed_run_that_may_not_be_deleted_stays_as_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await running()
    await world.conditions(names.CREATED, names.FAILED)

    async def refused(*place: Any, **how: Any) -> None:
        raise Forbidden("no")

    monkeypatch.setattr(world.memory, "delete", refused)
    with pytest.raises(Forbidden):
        await stop.resume(world.session, RUN)
    assert len(world.heard.said) == 1
    assert not list((home / "resuming").iterdir())
    (home / "resuming").rmdir()
    (home / "resuming").write_text("in the way")
    with pytest.raises(EnvironmentProblem, match=r"team\.flowers\.json cannot be written"):
        await stop.resume(world.session, RUN)


async def test_a_run_that_goes_on_is_removed_only_by_force_and_what_stays_is_said() -> None:
    world = Played()
    container = {
        "name": "pytorch",
        "image": "x",
        "env": [{"name": names.ENV_OUTPUT, "value": "/output/runs/flowers"}],
        "volumeMounts": [{"name": "output", "mountPath": "/output"}],
    }
    volumes = [{"name": "output", "persistentVolumeClaim": {"claimName": "results"}}]
    manifest = pytorchjob(workers=0)
    manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"] = {
        "containers": [container],
        "volumes": volumes,
    }
    await world.memory.create(PYTORCHJOB, "team", manifest)
    await world.conditions(names.CREATED, names.RUNNING)
    await world.pod()
    with pytest.raises(UserError, match="is going on: it is not removed"):
        await remove.refuse_going(world.session, RUN)
    removing = await in_background(remove.remove(world.session, RUN))
    assert not removing.done(), "a pod is still there"
    await world.remove("flowers-master-0")
    assert (await removing).output == "pvc://results/runs/flowers"
    assert world.heard.said == [
        "k8s://team/flowers removed, its pods too; what it wrote stays in pvc://results/runs/flowers"
    ]
    with pytest.raises(NotFound):
        await job(world)


async def test_status_list_and_events_have_what_the_laptop_has_and_the_place() -> None:
    world = await running()
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e1", "namespace": "team"},
        "involvedObject": {"kind": "Pod", "name": "flowers-master-0"},
        "type": "Warning",
        "reason": "BackOff",
        "message": "back-off",
        "lastTimestamp": "2026-11-25T12:00:00Z",
    }
    await world.memory.create(names.EVENT, "team", event)
    other = {**event, "metadata": {"name": "e2", "namespace": "team"}, "involvedObject": {"kind": "Pod", "name": "x"}}
    await world.memory.create(names.EVENT, "team", other)
    found = await status(world.session, RUN)
    assert (found["namespace"], found["name"], found["state"], found["step"]) == ("team", "flowers", "Running", 5)
    assert [(pod["pod"], pod["phase"], pod["node"], pod["generation"]) for pod in found["pods"]] == [
        ("flowers-master-0", "Running", "node-a", "1")
    ]
    assert [event["reason"] for event in found["events"]] == ["BackOff"]
    assert [run["name"] for run in await listing(world.session, RUN.place)] == ["flowers"]
    assert [run["name"] for run in await listing(world.session, RUN.place, all_namespaces=True)] == ["flowers"]
    assert await listing(world.session, Place(None, "other")) == []
    assert [row["message"] async for some in rows(world.session, RUN) for row in some] == ["back-off"]


@pytest.mark.parametrize("error", [ApiError("etcd is away", status=503), Unauthorized("expired", ""), NoAnswer("x")])
async def test_events_are_followed_over_a_server_that_is_away(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await running()
    monkeypatch.setattr(events, "LOOK_S", 0.02)
    listed, away = world.memory.list, True

    async def list_(kind: Any, *place: Any, **how: Any) -> Any:
        if kind == names.EVENT and away:
            raise error
        return await listed(kind, *place, **how)

    monkeypatch.setattr(world.memory, "list", list_)

    async def all_of_them() -> list[str]:
        return [row["reason"] async for some in rows(world.session, RUN, follow=True) for row in some]

    following = await in_background(all_of_them())
    assert not following.done()
    await world.memory.create(names.EVENT, "team", {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e1", "namespace": "team"}, "reason": "BackOff",
        "involvedObject": {"kind": "Pod", "name": "flowers-master-0"}, "lastTimestamp": "2026-11-25T12:00:00Z",
    })  # fmt: skip
    away = False
    await world.conditions(names.CREATED, names.SUCCEEDED)
    assert await asyncio.wait_for(following, 10) == ["BackOff"]


async def test_progress_is_told_as_the_status_says_it_each_step_once() -> None:
    world = await running()
    teller = Teller(world.heard, await job(world))
    pods = (await world.memory.list(names.POD, "team")).items
    teller.tell(await job(world), pods, 1.0)
    teller.tell(await job(world), pods, 2.0)
    assert [
        (event["kind"], event["step"], event["epochs"], event["stepsPerEpoch"]) for event in world.heard.events
    ] == [("step", 5, 4, 10)]
    progress = {"epoch": 2, "epochs": 4, "step": 12, "steps": 40, "top1": 0.5}
    await world.conditions(names.CREATED, names.RUNNING, progress=progress, restarts=1, cause="rank 0 died")
    teller.tell(await job(world), pods, 3.0)
    assert world.heard.events[-1]["step"] == 12
    assert world.heard.said == ["restart 1: rank 0 died", "validation: top-1 50.0%, at step 12 of 40"]


async def test_the_exit_code_is_the_ranks_own() -> None:
    world = await running()
    for codes, state, expected in (((0,), names.SUCCEEDED, 0), ((65,), names.FAILED, 65), ((1,), names.FAILED, 1)):
        await world.container("flowers-master-0", {"terminated": {"exitCode": codes[0]}})
        await world.conditions(names.CREATED, state)
        assert (await follow.outcome(world.session, RUN)).code == expected
    await world.conditions(names.CREATED, names.SUSPENDED)
    outcome = await follow.outcome(world.session, RUN)
    assert (outcome.code, outcome.name) == (130, "k8s://team/flowers")
