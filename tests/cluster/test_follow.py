"""The laptop's verbs on a real API server, as a user types them."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import yaml

from support.kubectl import Kubectl
from support.operating import Operator
from support.playedkubelet import PlayedKubelet, playing
from support.real import Team, connected, state_of
from support.scenario import pytorchjob
from support.typist import Typist
from trainserve.kube import names
from trainserve.kube.cluster import Manifest


@pytest.fixture
def typist(kubectl: Kubectl, tmp_path: Path) -> Typist:
    assert kubectl.namespace
    return Typist(kubectl.kubeconfig, tmp_path, kubectl.namespace)


@pytest.fixture
def kubelet(kubectl: Kubectl, tmp_path: Path) -> AbstractAsyncContextManager[PlayedKubelet]:
    return _playing(kubectl, tmp_path)


@asynccontextmanager
async def _playing(kubectl: Kubectl, folder: Path) -> AsyncIterator[PlayedKubelet]:
    assert kubectl.namespace
    async with (
        connected(str(kubectl.kubeconfig)) as cluster,
        playing(Team(cluster, kubectl.namespace), kubectl, folder) as kubelet,
    ):
        yield kubelet


async def test_all_ranks_are_followed_each_line_once_over_breaks_and_a_restart_of_the_gang(
    operator: Operator, team: Team, kubelet: PlayedKubelet, typist: Typist
) -> None:
    pods = ["flowers-master-0", "flowers-worker-0"]
    await team.create(kubelet.place(pytorchjob(workers=1)))
    written: dict[str, float] = {}
    async with typist.going("logs", "-f", typist.run) as following:
        await team.until_pods(2, phase="Pending")
        await kubelet.waits(pods[0], "ImagePullBackOff", "no such image")
        await following.until("waiting: flowers-master-0: ImagePullBackOff: no such image")
        for generation in (1, 2):
            for pod in pods:
                log = await kubelet.run(pod)
                written[f"[{pod}.g{generation}] first"] = time.monotonic()
                log.write("first")
            await team.until_state(names.RUNNING)
            for number in range(12):
                for pod in pods:
                    log = kubelet.logs.starts[pod, "pytorch"][-1]
                    written[f"[{pod}.g{generation}] step {number}"] = time.monotonic()
                    log.write(f"step {number}", after_s=number * 0.3)
                    if number in (4, 8):
                        log.cut()
                await asyncio.sleep(0.1)
            if generation == 1:
                await kubelet.end(pods[1], 137)
                for pod in pods:
                    await team.until(lambda job: job["status"]["generation"] == 2, "a new gang")
                    await kubelet.remove(pod)
                await team.until_pods(2, phase="Pending", generation=2)
        for pod in reversed(pods):
            await kubelet.end(pod, 0)
        assert await following.end() == 0, following.said
    came = {line: moment for moment, line in following.lines}
    assert sorted(line for _, line in following.lines) == sorted(written)
    assert max(came[line] - moment for line, moment in written.items()) <= 2.0
    for pod in pods:
        mine = [line for _, line in following.lines if line.startswith(f"[{pod}.")]
        assert mine == [line for line in written if line.startswith(f"[{pod}.")]
    again = await typist("logs", typist.run, "--rank", 1, "--tail", 2)
    assert again.stdout == "[flowers-worker-0.g2] step 10\n[flowers-worker-0.g2] step 11\n"
    none = await typist("logs", typist.run, "--rank", 7)
    assert (none.returncode, none.stdout) == (2, "")
    assert "has no rank 7" in none.stderr


async def test_a_run_is_listed_stopped_resumed_waited_for_and_removed(
    operator: Operator, team: Team, typist: Typist
) -> None:
    await team.create(pytorchjob(workers=1))
    waited = await typist("wait", "--for", "Running", typist.run, "-o", "json")
    assert (waited.returncode, json.loads(waited.stdout)["namespace"]) == (0, team.namespace), waited.stderr
    listed = await typist("list", "--namespace", team.namespace)
    assert listed.stdout.split()[:3] == ["NAMESPACE", "NAME", "STATE"]
    assert listed.stdout.splitlines()[1].split()[:4] == [team.namespace, "flowers", "Running", "2"]
    status = yaml.safe_load((await typist("status", typist.run, "-o", "yaml")).stdout)
    assert [(pod["pod"], pod["phase"]) for pod in status["pods"]] == [
        ("flowers-master-0", "Running"),
        ("flowers-worker-0", "Running"),
    ]
    assert {event["reason"] for event in status["events"]} >= {"SuccessfulCreatePod"}
    assert "Created 2 pods" in (await typist("events", typist.run)).stdout

    late = await typist("wait", "--timeout", "1s", typist.run)
    assert (late.returncode, late.stdout) == (124, "")
    cancelled = await typist("cancel", typist.run)
    assert cancelled.returncode == 0, cancelled.stderr
    assert await team.children() == []
    job = await team.job()
    assert state_of(job) == names.SUSPENDED
    assert names.SUSPEND_BY_USER in job["status"]["conditions"][-1]["message"]
    other = await typist("wait", typist.run)
    assert (other.returncode, other.stderr.split("\n")[0]) == (
        1,
        f"error: {typist.run} is Suspended, not Succeeded: {job['status']['conditions'][-1]['message']}",
    )
    resumed = await typist("resume", "--detach", typist.run, "-o", "name")
    assert (resumed.returncode, resumed.stdout) == (0, f"{typist.run}\n"), resumed.stderr
    await team.until_pods(2, generation=2)

    refused = await typist("rm", typist.run)
    assert (refused.returncode, "is going on: it is not removed" in refused.stderr) == (2, True)
    removed = await typist("rm", "--force", typist.run, "-o", "json")
    assert json.loads(removed.stdout) == [{"name": "flowers", "namespace": team.namespace, "output": None}]
    await team.until_gone(timeout_s=1)
    for words in (["status"], ["logs", "-f"]):
        gone = await typist(*words, typist.run)
        assert (gone.returncode, gone.stdout) == (2, "")
        assert gone.stderr.startswith(f"error: no such run 'flowers' in namespace {team.namespace}")
        assert "Traceback" not in gone.stderr


async def test_a_failed_run_goes_on_as_a_new_job_and_its_code_is_the_ranks(
    operator: Operator, team: Team, typist: Typist
) -> None:
    await team.create(pytorchjob(workers=0, backoffLimit=0))
    await team.until_pods(1)
    assert (await typist("resume", typist.run)).returncode == 2
    await team.end("flowers-master-0", 65)
    failed = await team.until_state(names.FAILED)
    async with typist.going("resume", typist.run) as following:
        await following.until("a new job of the same name goes on from its checkpoint")
        await team.until_another(failed)
        await team.until_pods(1, generation=2)
        await team.status({"progress": {"epoch": 1, "epochs": 2, "step": 3, "steps": 8, "loss": 1.5}})
        await following.until("epoch 1/2  step 3/8")
        await team.end("flowers-master-0", 65)
        assert await following.end() == 65, following.said
    assert any("Failed" in line for line in following.said)


async def test_ctrl_c_leaves_the_run_alone_and_what_is_printed_then_works(
    operator: Operator, team: Team, kubelet: PlayedKubelet, typist: Typist
) -> None:
    await team.create(kubelet.place(pytorchjob(workers=0)))
    await team.until_pods(1, phase="Pending")
    log = await kubelet.run("flowers-master-0")
    log.write("hello")
    async with typist.going("logs", "-f", typist.run) as following:
        await following.until("hello")
        following.process.send_signal(signal.SIGINT)
        assert await following.end(5) == 130
    assert "Traceback" not in "\n".join(following.said)
    printed = [line.split()[1:] for line in following.said if line.startswith("  platform ")]
    assert {words[0] for words in printed} == {"logs", "status", "wait", "cancel"}
    for words in printed:
        async with typist.going(*words) as going:
            if words[0] == "cancel":
                await team.until(lambda job: job["spec"]["runPolicy"].get("suspend", False), "suspended")
                await kubelet.remove("flowers-master-0")
            elif words[0] == "wait" or "-f" in words:
                await asyncio.sleep(1.0)
                assert going.process.returncode is None, going.said
                continue
            assert await going.end() == 0, going.said
    assert state_of(await team.job()) == names.SUSPENDED


def account(kubectl: Kubectl, folder: Path, name: str, *, may: bool) -> Path:
    """A kubeconfig of an account that may read jobs and pods in the test's namespace, or nothing."""
    kubectl("create", "serviceaccount", name)
    if may:
        reading = ["--verb=get,list,watch", "--resource=pytorchjobs.kubeflow.org,pods,pods/log,events"]
        kubectl("create", "role", name, *reading)
        kubectl("create", "rolebinding", name, f"--role={name}", f"--serviceaccount={kubectl.namespace}:{name}")
    found = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    return written(folder / f"{name}.kubeconfig", found, {"token": kubectl("create", "token", name).strip()})


def written(path: Path, kubeconfig: Mapping[str, object], user: Mapping[str, object]) -> Path:
    """The kubeconfig with this user."""
    found: Manifest = json.loads(json.dumps(kubeconfig))
    found["users"][0]["user"] = user
    path.write_text(json.dumps(found))
    return path


async def test_who_may_not_is_told_verb_resource_and_namespace(kubectl: Kubectl, team: Team, tmp_path: Path) -> None:
    await team.create(pytorchjob(workers=0))
    nobody = Typist(account(kubectl, tmp_path, "nobody", may=False), tmp_path, team.namespace)
    who = f"system:serviceaccount:{team.namespace}:nobody"
    for words, verb in (
        (["list", "--namespace", team.namespace], "list"),
        (["logs", "-f", nobody.run], "get"),
    ):
        refused = await nobody(*words)
        assert refused.returncode == 3, refused.stderr
        assert refused.stderr.startswith(
            f"error: {who} may not {verb} pytorchjobs.kubeflow.org in namespace {team.namespace}: "
        )
        assert f"hint: ask for the role view in namespace {team.namespace}" in refused.stderr
    viewer = Typist(account(kubectl, tmp_path, "viewer", may=True), tmp_path, team.namespace)
    assert (await viewer("status", viewer.run)).returncode == 0
    refused = await viewer("cancel", viewer.run)
    assert refused.returncode == 3
    assert "may not patch pytorchjobs.kubeflow.org" in refused.stderr
    assert "hint: ask for the role edit" in refused.stderr


async def test_credentials_of_a_command_and_such_as_are_expired(kubectl: Kubectl, team: Team, tmp_path: Path) -> None:
    await team.create(pytorchjob(workers=0))
    found = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    token = found["users"][0]["user"]["token"]
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    (tmp_path / "credential.json").write_text(json.dumps(credential))
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "cat",
        "args": [str(tmp_path / "credential.json")],
        "interactiveMode": "Never",
    }
    by_command = Typist(written(tmp_path / "exec.kubeconfig", found, {"exec": plugin}), tmp_path, team.namespace)
    listed = await by_command("list", "--namespace", team.namespace, "-o", "name")
    assert (listed.returncode, listed.stdout) == (0, f"{by_command.run}\n"), listed.stderr
    expired = Typist(written(tmp_path / "old.kubeconfig", found, {"token": "expired"}), tmp_path, team.namespace)
    for words in (["list", "-A"], ["logs", "-f", expired.run]):
        refused = await expired(*words)
        assert refused.returncode == 3, refused.stderr
        assert re.search(r"error: the API server does not take the credentials \(401", refused.stderr)
        assert "log in anew" in refused.stderr
