"""`platform train` on a real node, the same by kubectl alone, and the same by Kubeflow's SDK."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

from support import sdk
from support.clusterbinaries import ROOT
from support.command import command
from support.nodedigits import LONG_S, SHORT, STEPS, archives, events, weights_digest
from support.nodeteam import NodeTeam
from support.runs import wait_until
from trainserve.kube import names

SAMPLE = ROOT / "manifests/samples/01-digits/classifier.yaml"
SESSION = Path(__file__).with_name("sdk_session.py")
NODES = 4
REQUIRED_TOP1 = 0.97


def test_four_nodes_reach_97_percent_and_are_followed(make: Callable[..., NodeTeam], digits: Path) -> None:
    team = make(digits)
    words = team.train("digits", "-f", SAMPLE, "--nodes", NODES, "--memory", "1500Mi", "--env", "OMP_NUM_THREADS=1")
    assert team.said(*words, "--detach") == f"k8s://{team.namespace}/digits\n"
    followed = team.folder / "followed.log"
    with followed.open("wb") as output:
        follow = subprocess.Popen(
            command("logs", "-f", f"k8s://{team.namespace}/digits"), stdout=output, env=team.environment()
        )
        try:
            _see_progress(team, "digits")
            (group,) = team.kubectl.json("get", "podgroups")["items"]
            assert group["spec"]["schedulingPolicy"]["gang"]["minCount"] == NODES
            team.until("digits", names.SUCCEEDED, names.FAILED, timeout_s=LONG_S)
            assert follow.wait(60) == 0, followed.read_text()
        finally:
            follow.kill()
    assert team.state("digits") == names.SUCCEEDED, team.job("digits")["status"]
    lines = followed.read_text().splitlines()
    for pod in ("digits-master-0", *(f"digits-worker-{index}" for index in range(NODES - 1))):
        assert any(line.startswith(f"[{pod}") and "rank" in line for line in lines), f"{pod} is not in {lines}"
    top1 = max(event["top1"] for event in events(team, "digits") if "top1" in event)
    assert top1 >= REQUIRED_TOP1, top1
    (archive,) = archives(team, "digits")
    assert "MAR-INF/MANIFEST.json" in zipfile.ZipFile(archive).namelist()
    status = json.loads(team.said("status", f"k8s://{team.namespace}/digits", "-o", "json"))
    assert status["state"] == names.SUCCEEDED, status


def _see_progress(team: NodeTeam, run: str) -> None:
    """`kubectl get pytorchjobs` shows how far it is, while it trains."""

    def shown() -> bool:
        assert team.state(run) != names.FAILED, team.job(run)["status"]
        assert team.state(run) != names.SUCCEEDED, "it has ended, and nobody has seen its progress"
        _, line = team.kubectl("get", "pytorchjob", run).splitlines()
        return f"{NODES}/{NODES}" in line and "epoch " in line

    wait_until(shown, "progress in kubectl get", LONG_S)


def test_kubectl_apply_of_what_a_dry_run_prints_trains_the_same(
    make: Callable[..., NodeTeam], few_digits: Path, wanted: str
) -> None:
    team = make(few_digits)
    file = team.folder / "job.yaml"
    file.write_text(team.said(*team.train("few", *SHORT), "--dry-run", "-o", "yaml"))
    team.kubectl("apply", "-f", file)
    team.kubectl(
        "wait", "--for=condition=Succeeded", "pytorchjob/few", f"--timeout={LONG_S:.0f}s", timeout_s=LONG_S + 9
    )
    assert weights_digest(team, "few") == wanted
    assert len(archives(team, "few")) == 1


def test_kubeflows_sdk_trains_the_same(make: Callable[..., NodeTeam], few_digits: Path, wanted: str) -> None:
    team = make(few_digits)
    file = team.folder / "job.yaml"
    file.write_text(team.said(*team.train("few", *SHORT), "--dry-run", "-o", "yaml"))
    done = subprocess.run(
        [sdk.python(), SESSION, team.kubectl.kubeconfig, team.namespace, file],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG_S,
        env=team.environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["succeeded"] is True, said
    assert f"rank 0 of {SHORT[1]}" in said["log"], said["log"]
    assert f"{STEPS}" in json.dumps(team.job("few")["status"]["progress"])
    assert weights_digest(team, "few") == wanted
