"""What only real containers show of a job's pods: names, rights, memory, and places on a node that is too small."""

from __future__ import annotations

import json

from support.nodecluster import RunningCluster
from support.nodeconfig import NODE
from support.nodeteam import WITHIN_S, NodeTeam, scripted, template
from support.runs import wait_until
from trainserve.kube import names

MIB = 2**20


def test_a_worker_finds_the_master_by_name_before_that_is_ready(team: NodeTeam) -> None:
    """By publishNotReadyAddresses; the init container that waits runs as nobody, and so may the namespace demand."""
    master = template(
        "import socket\n"
        "server = socket.create_server(('', 23456))\n"
        "while server.accept()[0].recv(10) != b'done': pass\n"
        "print('heard')",
        readinessProbe={"exec": {"command": ["false"]}},
    )
    worker = template(
        "import os, socket\n"
        "address = socket.gethostbyname('names-master-0')\n"
        "socket.create_connection((address, 23456), 10).sendall(b'done')\n"
        "print(os.getuid(), address)"
    )
    team.kubectl.apply(scripted("names", master, worker))
    team.until("names", names.SUCCEEDED)
    pods = {pod["metadata"]["name"]: pod for pod in team.kubectl.json("get", "pods")["items"]}
    assert team.kubectl("logs", "names-worker-0") == f"{names.POD_USER} {pods['names-master-0']['status']['podIP']}\n"
    assert team.kubectl("logs", "names-master-0") == "heard\n"
    (waited,) = pods["names-worker-0"]["status"]["initContainerStatuses"]
    assert (waited["name"], waited["state"]["terminated"]["exitCode"]) == (names.INIT_CONTAINER, 0)


def test_shared_memory_is_as_large_as_the_pods_memory(team: NodeTeam) -> None:
    script = (
        "import os\n"
        "print(os.statvfs('/dev/shm').f_frsize * os.statvfs('/dev/shm').f_blocks)\n"
        f"open('/dev/shm/pictures', 'wb').write(bytes(96 * {MIB}))\n"
        "print(os.access('/', os.W_OK), os.getuid())"
    )
    limited = template(script, resources={"limits": {"memory": "200Mi"}})
    team.kubectl.apply(scripted("memory", limited))
    team.until("memory", names.SUCCEEDED)
    assert team.kubectl("logs", "memory-master-0").splitlines() == [str(200 * MIB), f"False {names.POD_USER}"]


def test_a_rank_that_is_killed_for_memory_is_the_jobs_cause_though_its_agent_lives(team: NodeTeam) -> None:
    eats = "kept = []\nwhile True: kept.append(bytearray(8 * 2 ** 20))"
    agent = (
        "import pathlib, sys\n"
        f"pathlib.Path('/tmp/rank.py').write_text({eats!r})\n"
        "from trainserve.launch.__main__ import main\n"
        "sys.exit(main(['/tmp/rank.py']))"
    )
    hungry = template(agent, packages=True, resources={"limits": {"memory": "256Mi"}})
    team.kubectl.apply(scripted("hungry", hungry))
    job = team.until("hungry", names.FAILED)
    pod = team.kubectl.json("get", "pod", "hungry-master-0")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert json.loads(ended["message"])["signal"] == "SIGKILL", ended
    assert "out of memory" in job["status"]["cause"].lower(), job["status"]
    assert job["status"].get("restarts", 0) == 0
    why = team.said("why", f"k8s://{team.namespace}/hungry")
    assert "out of memory" in why, why
    assert "the limit is 256Mi" in why, why
    wait_until(lambda: team.kubectl.json("get", "pod", "hungry-master-0")["status"]["phase"] == "Failed", "over", 60)
    assert "reason" not in team.kubectl.json("get", "pod", "hungry-master-0")["status"]  # nobody has stopped it


def test_a_gang_that_the_node_has_no_room_for_gets_no_place_and_says_what_is_missing(team: NodeTeam) -> None:
    node = team.kubectl.json("get", "node", NODE)
    cores = int(node["status"]["allocatable"]["cpu"])
    large = template("pass", resources={"requests": {"cpu": "1"}})
    team.kubectl.apply(scripted("gang", large, large, workers=cores))
    job = team.until("gang", names.PENDING)
    pods = team.kubectl.json("get", "pods")["items"]
    assert [pod["spec"].get("nodeName") for pod in pods] == [None] * (cores + 1)
    assert {pod["spec"]["schedulingGroup"]["podGroupName"] for pod in pods} == {names.pod_group_name("gang", 1)}
    message = job["status"]["conditions"][-1]["message"]
    assert f"0 of {cores + 1} pods have a node" in message, message
    assert "cpu" in message, message


def test_a_pod_of_a_higher_priority_takes_the_place_of_a_gang_which_comes_back_free_of_charge(
    team: NodeTeam, cluster: RunningCluster
) -> None:
    stops = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    listens = f"{stops}import socket\nserver = socket.create_server(('', 23456))\ntime.sleep(600)"
    cores = int(team.kubectl.json("get", "node", NODE)["status"]["allocatable"]["cpu"])
    half = {"requests": {"cpu": f"{400 * cores}m"}}
    team.kubectl.apply(
        scripted("low", template(listens, resources=half), template(f"{stops}time.sleep(600)", resources=half))
    )
    team.until("low", names.RUNNING)
    urgent = f"{team.namespace}-urgent"
    try:
        cluster.kubectl.apply(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": urgent},
                "value": 1000,
            }
        )
        pod = template("import time; time.sleep(15)", resources=half)["spec"]
        team.kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "urgent"},
                "spec": {**pod, "priorityClassName": urgent, "restartPolicy": "Never"},
            }
        )
        wait_until(lambda: team.job("low")["status"].get("generation") == 2, "a new gang", WITHIN_S)
        team.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/urgent", f"--timeout={WITHIN_S:.0f}s",
                     timeout_s=WITHIN_S + 10)  # fmt: skip
        job = team.until("low", names.RUNNING)
    finally:
        cluster.kubectl("delete", "priorityclass", urgent)
    assert job["status"].get("restarts", 0) == 0, job["status"]
    assert [end["cause"] for end in job["status"]["history"]], job["status"]
    assert "preempt" in json.dumps(job["status"]["history"]).lower(), job["status"]["history"]
