"""The local kubelet against the API server in memory, with small real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from support.runs import Node, alive, node, pod, terminated, wait_until
from trainserve.kube import names
from trainserve.kube.names import LOCAL_NAMESPACE, POD
from trainserve.local import process
from trainserve.local.server import MemoryCluster

PYTHON = sys.executable


def run(tmp_path: Path, scenario: Callable[[Node], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with node(tmp_path / "pods", **options) as running:
            await asyncio.wait_for(scenario(running), 20)

    asyncio.run(main())


def test_a_pod_succeeds_and_says_so_as_a_kubelet_does(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.create(pod("a", "sh", "-c", "echo out; echo err >&2; echo done > $TRAINSERVE_TERMINATION_LOG"))
        found = await node.over("a")
        assert found["spec"]["nodeName"] == "laptop"
        status = found["status"]
        assert (status["phase"], status["podIP"]) == ("Succeeded", "127.0.0.1")
        conditions = {c["type"]: c["status"] for c in status["conditions"]}
        assert conditions == {
            "PodScheduled": "True",
            "Initialized": "True",
            "ContainersReady": "False",
            "Ready": "False",
        }
        state = terminated(found)
        assert (state["exitCode"], state["reason"], state["message"]) == (0, "Completed", "done\n")
        assert node.log("a") == "out\nerr\n"

    run(tmp_path, scenario)


def test_a_pod_whose_folder_cannot_be_made_fails_alone(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        node.folder.mkdir(exist_ok=True)
        (node.folder / "a.g0").write_text("in the way")
        await node.create(pod("a", "true"))
        status = (await node.over("a"))["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "KubeletError")
        assert status["message"] == f"{node.folder / 'a.g0'} cannot be made: File exists"
        await node.create(pod("b", "true"))
        assert (await node.over("b"))["status"]["phase"] == "Succeeded"

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("exit 65", 65, "Error"),
        ("kill -9 $$$$", 137, "Error"),
        ("kill -15 $$$$", 143, "Error"),
        ("kill -15 0", 143, "Error"),
        ("kill -9 0", 137, "Error"),
    ],
)
def test_exit_codes(tmp_path: Path, script: str, code: int, reason: str) -> None:
    async def scenario(node: Node) -> None:
        await node.create(pod("a", "sh", "-c", script))
        found = await node.over("a")
        assert found["status"]["phase"] == "Failed"
        assert (terminated(found)["exitCode"], terminated(found)["reason"]) == (code, reason)

    run(tmp_path, scenario)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.create(pod("a", "no-such-program"))
        await node.create(pod("b", "true", container_workingDir="/no/such/folder"))
        state = terminated(await node.over("a"))
        assert (state["exitCode"], state["reason"]) == (127, "ContainerCannotRun")
        assert state["message"] == "no-such-program: No such file or directory"
        assert "/no/such/folder" in terminated(await node.over("b"))["message"]

    run(tmp_path, scenario)


def test_log_tail_is_the_message_where_the_pod_asks_for_it(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        script = "for i in $(seq 100); do echo line $i; done; exit 1"
        await node.create(pod("a", "sh", "-c", script, container_terminationMessagePolicy="FallbackToLogsOnError"))
        await node.create(pod("b", "sh", "-c", script))
        lines = terminated(await node.over("a"))["message"].splitlines()
        assert (len(lines), lines[-1]) == (80, "line 100")
        assert "message" not in terminated(await node.over("b"))

    run(tmp_path, scenario)


def test_env_working_dir_and_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_NNODES", "leftover of another job")
    monkeypatch.setenv("MINE", "inherited")
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}, {"name": "A", "value": "last"}]
    script = 'echo "$B|$(A)|$$(A)|$(NOT_SET)|$PET_NNODES|$MINE|$PWD"; command -v python'

    async def scenario(node: Node) -> None:
        # `$(NOT_SET)` and, because `$$` is a dollar sign, `$(A)` reach the shell, which takes them for commands.
        functions = "A() { echo shell; }; NOT_SET() { echo left; }; "
        await node.create(
            pod("a", "sh", "-c", functions + script, container_env=env, container_workingDir=str(tmp_path))
        )
        await node.over("a")
        python = str(Path(PYTHON).parent / "python")
        assert node.log("a") == f"12|last|shell|left||inherited|{tmp_path}\n{python}\n"

    run(tmp_path, scenario)


def test_init_containers_run_in_order_before_the_others(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        def init(name: str, script: str) -> dict[str, Any]:
            return {"name": name, "image": "none", "command": ["sh", "-c", script]}

        path = tmp_path / "order"
        await node.create(
            pod(
                "a",
                *("sh", "-c", f"echo main >> {path}"),
                initContainers=[init("one", f"sleep 0.2; echo one >> {path}"), init("two", f"echo two >> {path}")],
            )
        )
        await node.create(pod("b", "sh", "-c", f"echo never >> {path}", initContainers=[init("one", "exit 9")]))
        found = await node.over("a")
        assert path.read_text() == "one\ntwo\nmain\n"
        assert [s["state"]["terminated"]["exitCode"] for s in found["status"]["initContainerStatuses"]] == [0, 0]
        failed = await node.over("b")
        assert failed["status"]["phase"] == "Failed"
        assert "waiting" in failed["status"]["containerStatuses"][0]["state"]

    run(tmp_path, scenario)


def test_deletion_waits_for_sigterm_to_be_handled(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        saved = tmp_path / "saved"
        script = f"trap 'sleep 0.3; echo yes > {saved}; exit 143' TERM; echo ready; while :; do sleep 0.05; done"
        await node.create(pod("a", "sh", "-c", script))
        await node.started("a")
        await asyncio.to_thread(wait_until, lambda: "ready" in node.log("a"), "trap is set")
        await node.delete("a")
        assert "deletionTimestamp" in (await node.get("a"))["metadata"]
        await node.gone("a")
        assert saved.read_text() == "yes\n"

    run(tmp_path, scenario)


def test_after_the_grace_period_all_processes_are_killed_before_the_pod_goes(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        # The child leaves the group, ignores SIGTERM and is nobody's: it has to go all the same.
        ignore = "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.setsid()"
        child = f"{ignore}; print(os.getpid(), flush=True); time.sleep(99)"
        await node.create(pod("a", "sh", "-c", f"trap '' TERM; ({PYTHON} -c '{child}' &); sleep 99; sleep 99"))
        await node.started("a")
        await asyncio.to_thread(wait_until, lambda: node.log("a").strip().isdigit(), "child runs")
        pid = int(node.log("a"))
        began = time.monotonic()
        await node.delete("a", grace_s=1)
        await node.gone("a")
        assert not alive(pid)
        assert 0.9 < time.monotonic() - began < 4
        assert process.marked(node.folder) == []

    run(tmp_path, scenario)


def test_what_the_main_process_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.create(pod("a", "sh", "-c", "sleep 99 & echo $!; exit 0"))
        assert (await node.over("a"))["status"]["phase"] == "Succeeded"
        assert not alive(int(node.log("a")))

    run(tmp_path, scenario)


def test_a_killed_shim_takes_its_processes_with_it(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.create(pod("a", "sh", "-c", "echo $PPID $$$$; sleep 99"))
        await node.started("a")
        await asyncio.to_thread(wait_until, lambda: len(node.log("a").split()) == 2, "pids are told")
        shim, main = map(int, node.log("a").split())
        os.kill(shim, signal.SIGKILL)
        assert terminated(await node.over("a"))["exitCode"] == 137
        assert not alive(main)

    run(tmp_path, scenario)


def test_active_deadline_lowered_stops_the_pod_but_keeps_it(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.create(pod("a", "sleep", "99", terminationGracePeriodSeconds=1))
        await node.started("a")
        await node.cluster.patch(POD, LOCAL_NAMESPACE, "a", {"spec": {"activeDeadlineSeconds": 1}})
        found = await node.over("a")
        assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "DeadlineExceeded")
        assert terminated(found)["exitCode"] == 143

    run(tmp_path, scenario)


def test_restart_policies(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        count = "echo x >> $TRAINSERVE_POD_DIR/n; test $(wc -l < $TRAINSERVE_POD_DIR/n) -ge 3"
        await node.create(pod("on-failure", "sh", "-c", count, restartPolicy="OnFailure"))
        await node.create(pod("always", "sh", "-c", "exit 0", restartPolicy="Always"))
        found = await node.over("on-failure")
        assert found["status"]["phase"] == "Succeeded"
        status = found["status"]["containerStatuses"][0]
        assert (status["restartCount"], status["lastState"]["terminated"]["exitCode"]) == (2, 1)
        again = await node.until("always", lambda p: p["status"]["containerStatuses"][0]["restartCount"] >= 3)
        assert again["status"]["phase"] == "Running"

    run(tmp_path, scenario, delay_s=lambda _: 0.02)


def test_back_off_is_shown_and_ends_at_once_when_deleted(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.create(pod("a", "false", restartPolicy="Always"))
        found = await node.until(
            "a",
            lambda p: (
                "waiting" in p["status"].get("containerStatuses", [{"state": {}}])[0]["state"]
                and p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            ),
        )
        assert found["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 1
        await node.delete("a")
        await node.gone("a", 3)

    run(tmp_path, scenario, delay_s=lambda _: 60.0)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {
                "volumes": [{"name": "data", "hostPath": {"path": "/srv/pictures"}}],
                "container_volumeMounts": [{"name": "data", "mountPath": "/data"}],
            },
            "volume data in container main: mountPath /data must equal hostPath.path /srv/pictures",
        ),
        (
            {
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
                "container_volumeMounts": [{"name": "v", "mountPath": "/v"}],
            },
            "a volume of type persistentVolumeClaim is not supported on a laptop",
        ),
        ({"container_envFrom": [{"configMapRef": {"name": "c"}}]}, "container main: envFrom is not supported"),
        (
            {"container_env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
            "env A: valueFrom is not supported",
        ),
        ({"container_lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}, "lifecycle is not supported"),
        ({"container_command": []}, "command is missing"),
    ],
)
def test_what_cannot_be_done_fails_the_pod_and_is_named(tmp_path: Path, spec: dict[str, Any], said: str) -> None:
    async def scenario(node: Node) -> None:
        await node.create(pod("a", "true", **spec))
        found = await node.over("a")
        assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "NotSupportedLocally")
        assert said in found["status"]["message"]
        assert (terminated(found)["exitCode"], terminated(found)["reason"]) == (2, "ContainerCannotRun")

    run(tmp_path, scenario)


def test_what_has_no_effect_is_told_once_a_job(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        shm = {"volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]}
        mount = {"container_volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}]}
        for name in ("j-master-0", "j-worker-0"):
            await node.create(
                pod(
                    name,
                    "true",
                    labels={names.LABEL_JOB_NAME: "j"},
                    container_resources={"limits": {"cpu": "1"}},
                    **shm,
                    **mount,
                )
            )
            assert (await node.over(name))["status"]["phase"] == "Succeeded"
        assert await node.events() == [
            "no effect on this machine, where a pod is a group of processes: image, resources"
        ]

    run(tmp_path, scenario)


def job_pod(name: str, index: int, port: int = names.PORT) -> dict[str, Any]:
    env = {"MASTER_ADDR": "j-master-0", "MASTER_PORT": str(port), "PET_NNODES": "2", "OTHER": "j-master-0"}
    labels = {names.LABEL_JOB_NAME: "j", names.LABEL_GENERATION: "3"}
    if index == 0:
        labels[names.LABEL_JOB_ROLE] = "master"
    script = "echo $MASTER_ADDR $MASTER_PORT $OTHER $TRAINSERVE_HOST_NODES; sleep 0.4"
    return pod(name, "sh", "-c", script, labels=labels, container_env=[{"name": k, "value": v} for k, v in env.items()])


def test_addresses_of_a_job_are_this_machines_and_its_port_a_free_one(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.create(job_pod("j-master-0", 0))
        await node.create(job_pod("j-worker-0", 1))
        for name in ("j-master-0", "j-worker-0"):
            await node.over(name)
        master, worker = node.log("j-master-0", generation=3), node.log("j-worker-0", generation=3)
        assert master == worker
        address, port, other, nodes = master.split()
        assert (address, other, nodes) == ("127.0.0.1", "j-master-0", "2")
        assert int(port) not in (names.PORT, *range(32_768, 61_000))

    run(tmp_path, scenario)


def job(port: int) -> dict[str, Any]:
    container = {
        "name": "pytorch",
        "image": "none",
        "command": ["true"],
        "env": [{"name": "MASTER_PORT", "value": str(port)}],
    }
    replica = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "j"},
        "spec": {"pytorchReplicaSpecs": {"Master": replica}},
    }


def test_ddp_04_a_port_given_by_the_user_that_is_taken_is_named(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        with socket.create_server(("127.0.0.1", 0)) as foreign:
            port = foreign.getsockname()[1]
            await node.cluster.create(names.PYTORCHJOB, LOCAL_NAMESPACE, job(port))
            await node.create(job_pod("j-master-0", 0))
            found = await node.over("j-master-0")
            assert found["status"]["reason"] == "PortInUse"
            assert f"port {port} was given as MASTER_PORT" in found["status"]["message"]
            assert terminated(found)["exitCode"] == 3

    run(tmp_path, scenario)


def test_a_job_that_can_get_no_port_says_why(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        node.folder.mkdir(exist_ok=True)
        (node.folder / "ports").touch()  # where the folder of the reservations would be
        await node.create(job_pod("j-master-0", 0))
        found = await node.over("j-master-0")
        assert found["status"]["reason"] == "NoPort"
        assert "no port can be reserved" in found["status"]["message"]
        assert "hint: remove" in found["status"]["message"]
        assert terminated(found)["exitCode"] == 3

    run(tmp_path, scenario)


def test_a_port_given_by_the_user_is_used(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.cluster.create(names.PYTORCHJOB, LOCAL_NAMESPACE, job(23_999))
        await node.create(job_pod("j-master-0", 0))
        await node.over("j-master-0")
        assert node.log("j-master-0", generation=3).split()[1] == "23999"

    run(tmp_path, scenario)


def test_pods_of_an_earlier_kubelet_are_lost_and_their_processes_killed(tmp_path: Path) -> None:
    async def main() -> None:
        cluster = MemoryCluster()
        folder = tmp_path / "pods"
        stranger = await asyncio.create_subprocess_exec(
            "sleep", "99", env={**os.environ, "TRAINSERVE_POD_DIR": str(folder / "a.g0")}
        )
        await cluster.create(POD, LOCAL_NAMESPACE, pod("a", "sleep", "99"))
        await cluster.bind(LOCAL_NAMESPACE, "a", "laptop")
        await cluster.patch(POD, LOCAL_NAMESPACE, "a", {"status": {"phase": "Running"}}, subresource="status")
        restored = MemoryCluster.restore(json.loads(json.dumps(cluster.snapshot())))
        async with node(folder, restored) as running:
            found = await running.over("a")
            assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "NodeLost")
            assert await asyncio.wait_for(stranger.wait(), 5) == -signal.SIGKILL

    asyncio.run(main())


def test_a_pod_deleted_by_force_ends_at_once(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.create(pod("a", "sh", "-c", "trap '' TERM; echo $$$$; while :; do sleep 0.1; done"))
        await node.started("a")
        await asyncio.to_thread(wait_until, lambda: node.log("a").strip().isdigit(), "pid is told")
        await node.delete("a", grace_s=0)
        await asyncio.to_thread(wait_until, lambda: not alive(int(node.log("a"))), "process is gone", 3)

    run(tmp_path, scenario)


def test_a_name_used_again_is_another_pod(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        for turn in range(3):
            await node.create(pod("a", "sh", "-c", f"exit {turn}"))
            assert terminated(await node.over("a"))["exitCode"] == turn
            await node.delete("a")
            await node.gone("a")

    run(tmp_path, scenario)
