"""What happens to clusters while a training runs on them: it ends as if nothing had happened, weights and all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.nodecluster import NodeCluster, RunningCluster
from support.nodeconfig import NODE
from support.nodedigits import LONG_S, SHORT, STEPS, checkpointed, events, succeeded, weights_digest
from support.nodeteam import NodeTeam
from support.runs import wait_until
from trainserve.kube import names


def _until_resumed(team: NodeTeam) -> None:
    """A gang has gone on where the one before it stopped, and has come further by a checkpoint."""
    wait_until(lambda: any(event["kind"] == "resume" for event in events(team, "few")), "it goes on", LONG_S)
    _until_checkpoint_after(team, checkpointed(team, "few"))


def _until_checkpoint_after(team: NodeTeam, step: int) -> int:
    """The step of the first checkpoint seen after this one; there is still something to train then."""
    wait_until(lambda: checkpointed(team, "few") > step, f"a checkpoint after step {step}", LONG_S)
    found = checkpointed(team, "few")
    assert found < STEPS, "it had ended before it could be disturbed"
    return found


def test_a_worker_deleted_and_a_node_drained_in_mid_epoch_cost_nothing(
    make: Callable[..., NodeTeam], few_digits: Path, wanted: str
) -> None:
    team = make(few_digits)
    team.said(*team.train("few", *SHORT), "--detach")
    _until_checkpoint_after(team, 0)
    team.kubectl("delete", "pod", "few-worker-1", "--wait=false")
    _until_resumed(team)
    assert team.job("few")["status"]["generation"] == 2
    selected = f"--pod-selector={names.LABEL_JOB_NAME}=few"
    try:
        team.kubectl("drain", NODE, selected, "--force", "--delete-emptydir-data", "--timeout=200s", timeout_s=220)
        assert team.job("few")["status"]["conditions"][-1]["type"] != names.FAILED
    finally:
        team.kubectl("uncordon", NODE)
    job = succeeded(team, "few")
    assert job["status"].get("restarts", 0) == 0, job["status"]
    assert job["status"]["generation"] == 3, job["status"]
    stopped = [event["step"] for event in events(team, "few") if event["kind"] == "stopped"]
    assert len(stopped) == 2, stopped  # each of them wrote a checkpoint in the time that a pod has to end
    assert weights_digest(team, "few") == wanted


def test_an_operator_killed_and_an_api_server_that_starts_again_are_not_noticed_by_a_training(
    make: Callable[..., NodeTeam], few_digits: Path, wanted: str, own_cluster: NodeCluster
) -> None:
    team = make(few_digits)
    team.said(*team.train("few", *SHORT), "--detach")
    step = _until_checkpoint_after(team, 0)
    own_cluster.kubectl(
        "delete", "pod", f"--namespace={names.OPERATOR_NAMESPACE}", "-l",
        f"{names.LABEL_NAME}={names.OPERATOR_ACCOUNT}",
        "--grace-period=0", "--force",
    )  # fmt: skip
    step = _until_checkpoint_after(team, step)
    own_cluster.control_plane.stop_api_server()
    own_cluster.control_plane.start_api_server()
    job = succeeded(team, "few")
    assert (job["status"].get("restarts", 0), job["status"].get("generation", 1)) == (0, 1), job["status"]
    assert weights_digest(team, "few") == wanted
    own_cluster.kubectl("rollout", "status", f"deployment/{names.OPERATOR_ACCOUNT}",
                    f"--namespace={names.OPERATOR_NAMESPACE}", "--timeout=120s", timeout_s=130)  # fmt: skip


def test_an_upgrade_that_asks_for_progress_another_way_disturbs_no_job(
    make: Callable[..., NodeTeam], few_digits: Path, wanted: str, cluster: RunningCluster
) -> None:
    """From the pods' addresses to the API server's proxy; jobs go on, and are asked on."""
    team = make(few_digits)
    team.said(*team.train("few", *SHORT), "--detach")
    _until_checkpoint_after(team, 0)
    seen = _step_shown(team, 0)
    try:
        cluster.upgrade_operator("--set=progress=proxy")
        _step_shown(team, seen)
        job = succeeded(team, "few")
    finally:
        cluster.upgrade_operator("--set=progress=pod-ip")
    assert (job["status"].get("restarts", 0), job["status"].get("generation", 1)) == (0, 1), job["status"]
    assert weights_digest(team, "few") == wanted


def _step_shown(team: NodeTeam, after: int) -> int:
    """The step in the job's status, once it is a later one; by then the job has not ended."""

    def step() -> int:
        return int((team.job("few")["status"].get("progress") or {}).get("step", 0))

    wait_until(lambda: step() > after, f"progress after step {after}", LONG_S)
    return step()
