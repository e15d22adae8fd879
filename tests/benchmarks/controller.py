"""The controller beside Kubeflow's Training Operator v1.8.1 on one API server: `make bench-controller`.

Taking turns on the same control plane (tests/support/controlplane.py) and the same simulated nodes (KWOK), both with
their defaults: 100 jobs of one Master and three Workers. Then ours alone with many finished and running jobs: what it
costs at rest, and how long a pod's change takes to reach its job's status. Tables ready for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import clusterbinaries, kubeflow, real
from support.controlplane import KWOK, ControlPlane
from support.guarded import Guarded
from support.kubectl import Kubectl
from support.kwok import Kwok, add_nodes
from trainserve.kube import names, replicas
from trainserve.kube.client import KubeCluster, connect
from trainserve.kube.cluster import ApiError, Manifest, NotFound
from trainserve.kube.crd import pytorchjob_crd
from trainserve.kube.moments import rfc3339
from trainserve.kube.pods import replica_pod
from trainserve.machine.ports import LOOPBACK, Reserved
from trainserve.spec.pytorchjob import default

IN_FLIGHT = 40  # requests of ours on their way at a time
NODES = 20
HANG_S = 300.0
REST_S = 60.0

T = TypeVar("T")


@dataclass
class Round:
    """One controller's turn with a number of jobs. Seconds since the first job was sent."""

    all_created_s: float
    all_running_s: float
    all_told_s: float
    api_cpu_s: float
    own_cpu_s: float
    peak_mib: float
    writes: Counter[str] = field(default_factory=Counter)


def job(name: str, namespace: str, workers: int, **run_policy: Any) -> Manifest:
    env = [{"name": f"SETTING_{number}", "value": "value"} for number in range(4)]
    container = {"name": names.CONTAINER, "image": "localhost/train:1", "command": ["train"], "env": env}
    replica = {"restartPolicy": "OnFailure", "template": {"spec": {"containers": [container]}}}
    specs = {"Master": {"replicas": 1, **replica}, "Worker": {"replicas": workers, **replica}}
    spec = {"pytorchReplicaSpecs": specs, **({"runPolicy": run_policy} if run_policy else {})}
    metadata = {"name": name, "namespace": namespace}
    return {
        "apiVersion": names.PYTORCHJOB.api_version,
        "kind": names.PYTORCHJOB.kind,
        "metadata": metadata,
        "spec": spec,
    }


# --- the two controllers ------------------------------------------------------------------------------------------


@asynccontextmanager
async def ours(plane: ControlPlane, cluster: KubeCluster) -> AsyncIterator[Guarded]:
    await kubeflow.use_crd(cluster, pytorchjob_crd())
    ports = Reserved()
    address = f"{LOOPBACK}:{ports.port('metrics')}"
    words = [sys.executable, "-m", "trainserve", "operator", "run", "--kubeconfig", plane.kubeconfig]
    process = Guarded([*words, "--metrics-address", address], plane.folder / "ours.log")
    try:
        await until(lambda: answers(f"http://{address}/readyz"), process)
        yield process
    finally:
        process.stop(signal.SIGTERM)  # which gives the lease back: the next one need not wait for it to expire
        ports.release_all()


def theirs(plane: ControlPlane, cluster: KubeCluster) -> AbstractAsyncContextManager[Guarded]:
    return kubeflow.operating(plane, cluster, kubeflow.VERSION)


# --- many jobs from nothing ---------------------------------------------------------------------------------------


async def one_round(
    plane: ControlPlane, cluster: KubeCluster, process: Guarded, namespace: str, jobs: int, workers: int
) -> Round:
    pods = jobs * (workers + 1)
    created: set[str] = set()
    running: set[str] = set()
    told: set[str] = set()
    done: dict[str, float] = {}
    audit_from = plane.audit_log.stat().st_size

    async def watch(kind: names.Kind, note: Callable[[Manifest], None]) -> None:
        page = await cluster.list(kind, namespace)
        async for event in cluster.watch(kind, namespace, resource_version=page.resource_version, timeout_s=HANG_S):
            if event.type in {"ADDED", "MODIFIED"}:
                note(event.object)

    def pod_seen(pod: Manifest) -> None:
        if names.LABEL_JOB_NAME not in (pod["metadata"].get("labels") or {}):
            return
        created.add(pod["metadata"]["name"])
        if len(created) == pods:
            done.setdefault("created", time.monotonic())
        if (pod.get("status") or {}).get("phase") == "Running":
            running.add(pod["metadata"]["name"])
            if len(running) == pods:
                done.setdefault("running", time.monotonic())

    def job_seen(found: Manifest) -> None:
        counts = (found.get("status") or {}).get("replicaStatuses") or {}
        if sum(count.get("active") or 0 for count in counts.values()) == workers + 1:
            told.add(found["metadata"]["name"])
            if len(told) == jobs:
                done.setdefault("told", time.monotonic())

    watching = [asyncio.create_task(watch(names.POD, pod_seen)), asyncio.create_task(watch(names.PYTORCHJOB, job_seen))]
    await asyncio.sleep(0.5)
    api = plane.pid("kube-apiserver")
    api_before, own_before = cpu_s(api), cpu_s(process.pid)
    begun = time.monotonic()
    await at_once(cluster.create(names.PYTORCHJOB, namespace, job(f"job-{n}", namespace, workers)) for n in range(jobs))
    await until(lambda: len(done) == 3, process)
    api_cpu_s, own_cpu_s = cpu_s(api) - api_before, cpu_s(process.pid) - own_before
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    return Round(
        all_created_s=done["created"] - begun,
        all_running_s=done["running"] - begun,
        all_told_s=done["told"] - begun,
        api_cpu_s=api_cpu_s,
        own_cpu_s=own_cpu_s,
        peak_mib=memory_mib(process.pid, "VmHWM"),
        writes=writes(plane.audit_log, audit_from, namespace),
    )


async def bare(cluster: KubeCluster, namespace: str, jobs: int, workers: int) -> tuple[float, float]:
    """Seconds to create the same pods with nothing around them, and until all are Running: the limits."""
    pods = []
    for number in range(jobs):
        made = default(job(f"bare-{number}", namespace, workers))
        made["metadata"]["uid"] = "0"
        for replica_type, index in replicas.replicas(made):
            pod = replica_pod(made, replica_type, index, 1)
            del pod["metadata"]["ownerReferences"]
            pods.append(pod)
    running: set[str] = set()
    page = await cluster.list(names.POD, namespace)

    async def watch() -> None:
        async for event in cluster.watch(names.POD, namespace, resource_version=page.resource_version):
            if (event.object.get("status") or {}).get("phase") == "Running":
                running.add(event.object["metadata"]["name"])

    watching = asyncio.create_task(watch())
    begun = time.monotonic()
    await at_once(cluster.create(names.POD, namespace, pod) for pod in pods)
    created_s = time.monotonic() - begun
    await until(lambda: len(running) == len(pods))
    running_s = time.monotonic() - begun
    watching.cancel()
    return created_s, running_s


def writes(audit_log: Path, offset: int, namespace: str) -> Counter[str]:
    """Successful writes in the namespace by what was written, as the API server saw them."""
    counted: Counter[str] = Counter()
    with audit_log.open("rb") as log:
        log.seek(offset)
        for line in log:
            event = json.loads(line)
            reference = event.get("objectRef") or {}
            if event["verb"] not in {"create", "patch", "update", "delete"} or reference.get("namespace") != namespace:
                continue
            if event["responseStatus"]["code"] < 300:
                what = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
                counted[f"{event['verb']} {what}"] += 1
    return counted


# --- many jobs at rest --------------------------------------------------------------------------------------------


async def at_rest(plane: ControlPlane, cluster: KubeCluster, finished: int, running: int) -> list[str]:
    namespace = "rest"
    await make_namespace(cluster, namespace)
    now = rfc3339(time.time())
    moments = {"lastUpdateTime": now, "lastTransitionTime": now}
    over = {"type": "Succeeded", "status": "True", "reason": "PyTorchJobSucceeded", "message": "over", **moments}

    async def finish(number: int) -> None:
        name = f"old-{number}"
        await cluster.create(names.PYTORCHJOB, namespace, job(name, namespace, 1, cleanPodPolicy="All"))
        status = {"conditions": [over], "completionTime": now, "startTime": now}
        await cluster.patch(names.PYTORCHJOB, namespace, name, {"status": status}, subresource="status")

    await at_once(finish(number) for number in range(finished))
    await at_once(cluster.create(names.PYTORCHJOB, namespace, job(f"new-{n}", namespace, 1)) for n in range(running))
    async with ours(plane, cluster) as first:
        await until(lambda: all_running(cluster, namespace, 2 * running), first)
        await asyncio.sleep(5)
    begun = time.monotonic()
    async with ours(plane, cluster) as process:
        start_s = time.monotonic() - begun
        await asyncio.sleep(15)
        before, since = cpu_s(process.pid), time.monotonic()
        await asyncio.sleep(REST_S)
        rest = (cpu_s(process.pid) - before) / (time.monotonic() - since)
        latencies = await told_after(cluster, namespace, running)
        memory = memory_mib(process.pid, "VmRSS")
    p50, p99 = statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]
    return [
        f"| start until ready (caches filled) | {start_s:.1f} s | - |",
        f"| memory | {memory:.0f} MiB | - |",
        f"| processor at rest, over {REST_S:.0f} s | {rest:.1%} of a core | < 5 % |",
        f"| from a pod's change to its job's status, p50 | {p50 * 1000:.0f} ms | - |",
        f"| the same, p99 of {len(latencies)} | {p99 * 1000:.0f} ms | - |",
    ]


async def told_after(cluster: KubeCluster, namespace: str, running: int) -> list[float]:
    """Seconds from the write of a Master's end to the write of its job's: both seen by one watch of the jobs."""
    changed: dict[str, float] = {}
    latencies: list[float] = []
    page = await cluster.list(names.PYTORCHJOB, namespace)

    async def watch() -> None:
        async for event in cluster.watch(names.PYTORCHJOB, namespace, resource_version=page.resource_version):
            conditions = (event.object.get("status") or {}).get("conditions") or [{"type": ""}]
            name = event.object["metadata"]["name"]
            if conditions[-1]["type"] == "Succeeded" and name in changed:
                latencies.append(time.monotonic() - changed.pop(name))

    watching = asyncio.create_task(watch())
    for number in range(running):
        name = f"new-{number}"
        changed[name] = time.monotonic()
        pod = names.replica_name(name, "Master", 0)
        await cluster.patch(names.POD, namespace, pod, {"status": {"phase": "Succeeded"}}, subresource="status")
        await asyncio.sleep(0.05)
    await until(lambda: len(latencies) == running)
    watching.cancel()
    return latencies


async def all_running(cluster: KubeCluster, namespace: str, pods: int) -> bool:
    await asyncio.sleep(0.5)
    found = (await cluster.list(names.POD, namespace)).items
    return sum(1 for pod in found if (pod.get("status") or {}).get("phase") == "Running") == pods


# --- asking and measuring -----------------------------------------------------------------------------------------


async def at_once(requests: Iterable[Awaitable[Any]]) -> None:
    """All of them, IN_FLIGHT at a time."""
    turn = asyncio.Semaphore(IN_FLIGHT)

    async def one(request: Awaitable[Any]) -> None:
        async with turn:
            await request

    await asyncio.gather(*(one(request) for request in requests))


async def until(ready: Callable[[], bool | Awaitable[bool]], process: Guarded | None = None) -> None:
    async with asyncio.timeout(HANG_S):
        while True:
            found = ready()
            if found if isinstance(found, bool) else await found:
                return
            if process is not None and not process.alive():
                sys.exit(f"error: the controller has ended:\n{process.tail()}")
            await asyncio.sleep(0.02)


async def answers(url: str) -> bool:
    import aiohttp

    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int, what: str) -> float:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) / 1024


async def make_namespace(cluster: KubeCluster, namespace: str) -> None:
    kind = names.NAMESPACE
    content = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": namespace}}
    await cluster.create(kind, None, content)
    await real.there(cluster, names.SERVICE_ACCOUNT, namespace, "default")


async def remove_all(cluster: KubeCluster, namespace: str) -> None:
    """Every job and pod of the namespace, so that the next round has a quiet server."""
    await cluster.delete(names.NAMESPACE, None, namespace)

    async def gone() -> bool:
        await asyncio.sleep(0.5)
        try:
            await cluster.get(names.NAMESPACE, None, namespace)
        except NotFound:
            return True
        except ApiError:
            return False
        return False

    await until(gone)


# --- the tables ---------------------------------------------------------------------------------------------------


def throughput_table(
    ours_: list[Round], theirs_: list[Round], bare_s: list[tuple[float, float]], jobs: int, workers: int
) -> list[str]:
    pods = jobs * (workers + 1)

    def row(what: str, value: Callable[[Round], float], goal: str, *, higher: bool = False) -> str:
        mine, other = (statistics.median(value(each) for each in rounds) for rounds in (ours_, theirs_))
        ratio = mine / other if higher else other / mine
        return f"| {what} | {mine:.2f} | {other:.2f} | {ratio:.1f} x | {goal} |"

    return [
        f"| {jobs} jobs of {workers + 1} pods, median of {len(ours_)} | ours | training-operator {kubeflow.VERSION} "
        "| better by | goal |",
        "|---|---|---|---|---|",
        row("pods created a second", lambda each: pods / each.all_created_s, ">= 20 x", higher=True),
        row("seconds until all are Running", lambda each: each.all_running_s, "-"),
        row("seconds until all jobs say so", lambda each: each.all_told_s, "-"),
        row("API server's processor, s", lambda each: each.api_cpu_s, "-"),
        row("controller's processor, s", lambda each: each.own_cpu_s, "-"),
        row("controller's memory at its peak, MiB", lambda each: each.peak_mib, "-"),
        row(
            f"writes a job, events apart (goal <= {6 + 2 * (workers + 1)})",
            lambda each: sum(n for what, n in each.writes.items() if not what.endswith("events")) / jobs - 1,
            f"<= {6 + 2 * (workers + 1)}",
        ),
        "",
        f"The same pods with nothing around them, {IN_FLIGHT} at a time: "
        f"{pods / statistics.median(created_s for created_s, _ in bare_s):.0f} created a second, all Running after "
        f"{statistics.median(running_s for _, running_s in bare_s):.1f} s.",
        "",
        "Writes of ours in the last round: " + ", ".join(f"{n} {what}" for what, n in sorted(ours_[-1].writes.items())),
    ]


async def measure(plane: ControlPlane, options: argparse.Namespace) -> None:
    rounds: dict[str, list[Round]] = {"theirs": [], "ours": []}
    bare_s: list[tuple[float, float]] = []
    async with connect(str(plane.kubeconfig)) as cluster:
        if "throughput" in options.parts:
            for turn in range(options.rounds):
                for which, controller in (("theirs", theirs), ("ours", ours)):
                    namespace = f"{which}-{turn}"
                    await make_namespace(cluster, namespace)
                    async with controller(plane, cluster) as process:
                        found = await one_round(plane, cluster, process, namespace, options.jobs, options.workers)
                    print(f"{which}: {found}", file=sys.stderr, flush=True)
                    rounds[which].append(found)
                    await remove_all(cluster, namespace)
                namespace = f"bare-{turn}"
                await make_namespace(cluster, namespace)
                bare_s.append(await bare(cluster, namespace, options.jobs, options.workers))
                await remove_all(cluster, namespace)
            print("\n".join(throughput_table(rounds["ours"], rounds["theirs"], bare_s, options.jobs, options.workers)))
        if "rest" in options.parts:
            lines = await at_rest(plane, cluster, options.finished, options.running)
            print(f"\n| {options.finished} finished and {options.running} running jobs | ours | goal |\n|---|---|---|")
            print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--finished", type=int, default=1000)
    parser.add_argument("--running", type=int, default=200)
    parser.add_argument("--parts", nargs="*", default=["throughput", "rest"], choices=["throughput", "rest"])
    options = parser.parse_args()
    clusterbinaries.binaries()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory(prefix="bench-controller-") as folder:
        plane = ControlPlane(Path(folder))
        plane.start()
        kwok = Kwok(plane.kubeconfig_of(KWOK), Path(folder))
        try:
            kwok.start()
            add_nodes(Kubectl(plane.kubeconfig), NODES, {"cpu": "64", "memory": "256Gi"}, prefix="node")
            asyncio.run(measure(plane, options))
        finally:
            kwok.stop()
            plane.stop()


if __name__ == "__main__":
    main()
