"""A real Prometheus scrapes a real operator and a real run until every query of rules and dashboards gives something.

Queries that only a failure answers are driven into it. A minute of the rules is a second here: windows, offsets, waits
and thresholds of seconds are divided by 60, and Prometheus scrapes each second.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from support.kubectl import Kubectl
from support.kwok import LABEL, SIMULATED, on_own_nodes
from support.nodeprocess import AddNode, added_nodes
from support.nodetraining import digits_folder, training
from support.operating import Operator
from support.ownprogram import OwnProgram
from support.prometheus import Prometheus, a_minute_a_second, promtool, rules, write_scaled_rules
from support.real import Team
from support.scenario import pytorchjob
from support.testserver import OwnServer, Server
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.local.nodenetwork import Network
from trainserve.observe import dashboards

RUN = "digits"
OWN = "own-program"
STANDBY = "standby-system"
WITHIN_S = 180.0
GPU = "nvidia.com/gpu"
NEVER_SEEN = {"TrainserveOperatorBug"}  # there is none to be had: its query must know the series, and find no bug


@pytest.fixture
def server(own_server: OwnServer) -> Server:
    """One that may be paused."""
    return own_server.server


@pytest.fixture
def add_node(kubectl: Kubectl, tmp_path: Path) -> Iterator[AddNode]:
    yield from added_nodes(kubectl, tmp_path)


@pytest.fixture
def worker(kubectl: Kubectl, tmp_path: Path) -> Iterator[Operator]:
    """An operator that works, with one worker, so that a pass that hangs holds up the others."""
    (tmp_path / "worker").mkdir()
    operator = Operator(kubectl, tmp_path / "worker", "--workers", 1)
    operator.start()
    yield operator
    operator.close()


@pytest.fixture
def standby(kubectl: Kubectl, tmp_path: Path) -> Iterator[Operator]:
    """One that waits for a lease that somebody holds who does not work."""
    lease = {
        "apiVersion": names.LEASE.api_version,
        "kind": names.LEASE.kind,
        "metadata": {"name": names.OPERATOR_LEASE},
        "spec": {
            "holderIdentity": "somebody",
            "leaseDurationSeconds": 3600,
            "renewTime": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
        },
    }
    kubectl.apply(lease)
    (tmp_path / "standby").mkdir()
    operator = Operator(kubectl, tmp_path / "standby", "--leader-elect")
    operator.start()
    yield operator
    operator.close()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    found = Prometheus(tmp_path / "prometheus", write_scaled_rules(tmp_path / "rules"))
    found.start()
    yield found
    found.stop()


@pytest.fixture
def own_program(tmp_path: Path) -> Iterator[OwnProgram]:
    program = OwnProgram(tmp_path)
    yield program
    program.close()


class Watch:
    """What has given data so far, and which alerts have fired, over all looks."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus
        self.fired: set[str] = set()
        self.alerts: dict[str, Manifest] = {}
        panels = [query.expr for each in dashboards.ALL.values() for query in each.queries()]
        self.unanswered = {expr: _filled_in(expr) for expr in [*panels, *(rule["expr"] for rule in rules())]}
        self.of_the_run: set[str] = set()  # queries that a series of the real run has answered

    def look(self) -> None:
        for expr, scaled in list(self.unanswered.items()):
            found = self._prometheus.query(scaled)
            if any(series["metric"].get("job") == RUN for series in found):
                self.of_the_run.add(expr)
            if found and (expr in self.of_the_run or not _of_the_run(expr)):
                del self.unanswered[expr]
        for alert in self._prometheus.alerts():
            if alert["state"] == "firing":
                self.fired.add(alert["labels"]["alertname"])
                self.alerts[alert["labels"]["alertname"]] = alert

    async def until(self, done: Callable[[], bool], what: str) -> None:
        give_up = time.monotonic() + WITHIN_S
        while True:
            await asyncio.to_thread(self.look)
            if done():
                return
            assert time.monotonic() < give_up, (
                f"{what}: not within {WITHIN_S:.0f} s; fired: {sorted(self.fired)}; no data: {sorted(self.unanswered)}"
            )
            await asyncio.sleep(0.5)

    async def until_fired(self, *alerts: str) -> None:
        await self.until(lambda: set(alerts) <= self.fired, f"{sorted(alerts)} fire")


def _filled_in(expr: str) -> str:
    expr = re.sub(r"\$(namespace|job_namespace|job)\b", ".*", expr.replace("$__rate_interval", "5m"))
    return a_minute_a_second(expr)


def _of_the_run(expr: str) -> bool:
    """Whether the real run can answer it: it has no GPU, and nothing goes wrong with it."""
    alerts = {rule["expr"] for rule in rules() if "alert" in rule}
    return "namespace, job)" in expr and expr not in alerts and "gpu_memory" not in expr


def single(namespace: str, name: str, **spec: Manifest) -> Manifest:
    """A job of one pod on the test's simulated nodes, which ends when the test says so."""
    job = pytorchjob(name, workers=0, cleanPodPolicy="All")
    template = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    template["spec"] = on_own_nodes(template["spec"], namespace)
    template["spec"]["nodeSelector"][LABEL] = SIMULATED
    template["spec"]["containers"][0] |= spec
    return job


def aim(
    prometheus: Prometheus, operators: dict[str, Operator], own: OwnProgram, namespace: str, run: Iterable[str]
) -> None:
    """Targets, labelled as the relabelling of docs/how-to/watch-a-cluster.md does it."""
    targets = [
        (operator.url.removeprefix("http://"), {"namespace": where, "pod": f"{where}-0"})
        for where, operator in operators.items()
    ]
    targets += [(address, {"namespace": namespace, "job": RUN}) for address in run]
    prometheus.aim([*targets, (own.address, {"namespace": namespace, "job": OWN})])


@pytest.mark.training
@pytest.mark.timeout(900)
async def test_every_query_of_rules_and_dashboards_gives_data_and_every_alert_fires(
    worker: Operator,
    standby: Operator,
    add_node: AddNode,
    nodes: Callable[..., list[str]],
    team: Team,
    kubectl: Kubectl,
    prometheus: Prometheus,
    own_program: OwnProgram,
    own_server: OwnServer,
    tmp_path: Path,
) -> None:
    node = add_node("one", "--cpu", 4)
    nodes(1, {"cpu": "64"})
    digits = await asyncio.to_thread(digits_folder, tmp_path)
    operators = {names.OPERATOR_NAMESPACE: worker, STANDBY: standby}
    watch = Watch(prometheus)
    own_program.begin(1)
    aim(prometheus, operators, own_program, team.namespace, [])
    node.wait_ready()

    # A real run of two nodes, whose worker is taken away once it has saved something.
    (output := tmp_path / "output").mkdir()
    run = training(team.namespace, digits, output, nodes=2, epochs=200)
    for replica in run["spec"]["pytorchReplicaSpecs"].values():
        replica["template"]["spec"]["nodeSelector"][names.LABEL_NODE] = names.NODE_OF_PROCESSES
    kubectl.apply(run)
    # Simulated pods: five jobs restart, one of them fails then, one has no place, one is deleted.
    restarting = [f"restarts-{index}" for index in range(5)]
    for name in restarting:
        await team.create(single(team.namespace, name))
    await team.create(single(team.namespace, "hungry", resources={"limits": {GPU: "1"}}))
    for name in restarting:
        await team.until_pods(1, name=name)
        await team.until_state(names.RUNNING, name)
    await watch.until(lambda: bool(prometheus.query("training_operator_jobs_restarted_total == 0")), "a first scrape")
    for name in restarting:
        await team.end(f"{name}-master-0", 137)
    for generation in (2, 3, 4):
        await asyncio.sleep(2.5)  # so that each start is scraped
        own_program.begin(generation)
    await asyncio.sleep(2.5)
    own_program.break_()

    network = Network(team.cluster, node.name, "")  # type: ignore[arg-type]
    [master, *_] = await team.until_pods(2, name=RUN, timeout_s=WITHIN_S)
    first = f"{network.host(master)}:{names.PROGRESS_PORT}"
    aim(prometheus, operators, own_program, team.namespace, [first])
    saved = f'trainserve_training_checkpoint_timestamp_seconds{{job="{RUN}"}}'
    await watch.until(lambda: bool(prometheus.query(saved)), "the run's first checkpoint")
    validated = f'trainserve_training_epoch_train_top1_ratio{{job="{RUN}"}}'
    await watch.until(lambda: bool(prometheus.query(validated)), "the run's first validation")
    page = await asyncio.to_thread(_page, f"http://{first}{names.METRICS_PATH}")
    for text in (page, worker.get(names.METRICS_PATH), standby.get(names.METRICS_PATH)):
        linted = promtool("check", "metrics", stdin=text)
        assert (linted.returncode, linted.stdout) == (0, "")

    await team.remove(f"{RUN}-worker-0")
    await team.until(lambda job: int(job["status"].get("generation") or 0) == 2, "its second start", RUN, WITHIN_S)
    [master, *_] = await team.until_pods(2, name=RUN, generation=2, timeout_s=WITHIN_S)
    aim(prometheus, operators, own_program, team.namespace, [f"{network.host(master)}:{names.PROGRESS_PORT}"])
    for name in restarting:
        await team.until_pods(1, name=name, generation=2)
    await team.end(f"{restarting[0]}-master-0", 1)
    await team.until_state(names.FAILED, restarting[0])
    await team.end(f"{restarting[1]}-master-0", 0)
    await team.delete(restarting[2])
    restarted = f'trainserve_training_generation{{job="{RUN}"}} == 2'
    await watch.until(lambda: bool(prometheus.query(restarted)), "the run's second start")

    await watch.until_fired(
        "TrainserveOperatorNotLeading",
        "TrainserveJobStalled",
        "TrainserveJobNoStep",
        "TrainserveJobRestartingOften",
        "TrainserveRestartsInNamespace",
        "TrainserveJobPendingLong",
        "TrainserveCheckpointOld",
        "TrainserveLossNotFinite",
        "TrainserveJobFailed",
    )
    assert watch.alerts["TrainserveLossNotFinite"]["labels"]["job"] == OWN
    assert watch.alerts["TrainserveOperatorNotLeading"]["labels"]["namespace"] == STANDBY
    told = watch.alerts["TrainserveJobNoStep"]["annotations"]["summary"]
    assert told == f"{team.namespace}/{OWN} stands at step 8 for half an hour."

    # Nothing else is to be worked on; then the operator may write no status any more, and is given jobs.
    for name in (RUN, "hungry", *(each for each in restarting if each != restarting[2])):
        await team.delete(name)
    _take_away(kubectl, "pytorchjobs/status")
    feeding = asyncio.create_task(_feed(team))
    try:
        await watch.until_fired("TrainserveOperatorReconcileErrors", "TrainserveOperatorApiErrors")
    finally:
        feeding.cancel()

    own_server.control_plane.pause_api_server()
    try:
        await watch.until_fired("TrainserveOperatorPassStuck", "TrainserveOperatorQueueOld")
    finally:
        own_server.control_plane.continue_api_server()

    worker.kill()
    standby.kill()
    await watch.until_fired("TrainserveOperatorDown")

    alerts = {rule["alert"]: rule["expr"] for rule in rules() if "alert" in rule}
    assert set(alerts) - watch.fired == NEVER_SEEN
    assert set(watch.unanswered) == {alerts[name] for name in NEVER_SEEN}


async def _feed(team: Team) -> None:
    """A new job a second: those that fail are tried again less and less often."""
    for index in itertools.count():
        await team.create(single(team.namespace, f"refused-{index}"))
        await asyncio.sleep(1)


def _take_away(kubectl: Kubectl, resource: str) -> None:
    """Every right of the operator's Roles to a resource."""
    for role in kubectl.json("get", "roles")["items"]:
        rules = [rule for rule in role["rules"] if resource not in rule["resources"]]
        metadata = {"name": role["metadata"]["name"]}
        kubectl.apply({"apiVersion": role["apiVersion"], "kind": role["kind"], "metadata": metadata, "rules": rules})


def _page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        body: bytes = answer.read()
    return body.decode()
