"""The diagnosis of evidence as a cluster gives it: raw pods and the text of logs, without any folder."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trainserve.kube import names
from trainserve.observe.why.diagnose import diagnose
from trainserve.observe.why.evidence import Evidence, PodEvidence, past_pod, pod_of
from trainserve.observe.why.scene import exit_words

SPEC = {"data": {"path": "/data"}, "train": {"batchSize": 64, "nodes": 2, "nprocPerNode": 3, "lr": 0.1}}


def raw_pod(role: str, index: int, generation: int = 1, node: str = "node-7", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"flowers-{role}-{index}",
            "labels": {
                "training.kubeflow.org/replica-type": role,
                "training.kubeflow.org/replica-index": str(index),
                "trainserve.dev/generation": str(generation),
            },
        },
        "spec": {"nodeName": node},
        "status": status,
    }


def ended(code: int, *, reason: str = "Error", message: str = "") -> dict[str, Any]:
    end = {"exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-01-01T00:00:10Z"}
    return {"phase": "Failed", "containerStatuses": [{"name": "pytorch", "state": {"terminated": end}}]}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "pytorch", "state": state}]}


def said(rank: int, code: int, time: float, message: str = "", **more: Any) -> str:
    return json.dumps({"rank": rank, "exitCode": code, "time": time, "message": message, **more})


def evidence(*pods: PodEvidence, state: str = "Failed", reason: str = "", **more: Any) -> Evidence:
    status = more.pop("status", {})
    condition = {"type": state, "status": "True", "reason": reason, "message": more.pop("message", "")}
    whole = {"generation": 1, "conditions": [condition], **status}
    return Evidence("flowers", state, now=1e9, status=whole, pods=pods, **more)


def test_the_first_to_fail_is_no_victim() -> None:
    pods = [
        pod_of(raw_pod("master", 0, **ended(200, message=said(0, 200, 5.0)))),
        pod_of(raw_pod("worker", 0, **ended(1, message=said(1, 1, 9.0, "ValueError: mine")))),
        pod_of(raw_pod("worker", 1, **ended(137, message=said(2, 137, 7.0, signal="SIGKILL")))),
    ]
    found = diagnose(evidence(*pods))
    assert (found.cause, found.rank, found.pod, found.node) == ("killed", 2, "flowers-worker-1", "node-7")
    assert {victim.who for victim in found.victims} == {"rank 0 (Master 0)", "rank 1 (Worker 0)"}
    named = diagnose(evidence(*pods, status={"cause": "Worker 0: rank 1 failed (exit code 1)"}))
    assert (named.cause, named.rank) == ("exception", 1), "what the controller named goes first"


@pytest.mark.parametrize(
    ("pod", "cause", "words", "advice"),
    [
        (ended(137, reason="OOMKilled"), "out-of-memory", "out of memory", "--batch-size 30"),
        (
            ended(1, message=said(0, 1, 1.0, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB")),
            "gpu-out-of-memory",
            "GPU memory",
            "--batch-size 30 --amp bf16",
        ),
        (ended(137, message=said(0, 137, 1.0, signal="SIGKILL", oomKills=1)), "out-of-memory", "kernel", "batch"),
        (ended(1, message=said(0, 1, 1.0, "CUDA error: an illegal memory access")), "gpu-error", "GPU", "nvidia-smi"),
        (
            ended(1, message=said(0, 1, 1.0, "ImportError: /x/libtorch.so: undefined symbol: abc")),
            "library-broken",
            "undefined symbol",
            "reinstall",
        ),
        (ended(1, message=said(0, 1, 1.0, "module compiled against NumPy 1.x")), "library-broken", "NumPy", "numpy<2"),
        (ended(132, message=said(0, 132, 1.0, signal="SIGILL")), "segfault", "SIGILL", "another processor"),
        (ended(143, message=said(0, 143, 1.0)), "stopped", "asked to stop", "platform resume flowers"),
        (ended(64, message="no JSON"), "unknown", "exit code 64", "platform logs flowers"),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on disk"}, "evicted", "low on disk", "resume"),
    ],
)
def test_causes_that_only_a_cluster_has(pod: dict[str, Any], cause: str, words: str, advice: str) -> None:
    found = diagnose(evidence(pod_of(raw_pod("master", 0, **pod)), spec=SPEC, spec_file="/f.yaml", next_name="f-2"))
    assert found.cause == cause
    assert words in found.title
    assert advice in found.advice


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (waiting("ImagePullBackOff", "manifest for nowhere/x:1 not found"), "image-not-found"),
        (waiting("ErrImagePull", "unauthorized: authentication required"), "image-denied"),
        (waiting("CreateContainerConfigError", 'secret "token" not found'), "secret-missing"),
        ({
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: memory"}
            ],
        }, "unschedulable"),
    ],
)  # fmt: skip
def test_cli_06_pods_that_cannot_start_have_their_own_reasons(status: dict[str, Any], cause: str) -> None:
    found = diagnose(evidence(pod_of(raw_pod("worker", 2, **status)), state="Created"))
    assert found.cause == cause
    assert "Worker 2" in found.title
    assert found.pod == "flowers-worker-2"


def test_a_job_that_breaks_a_rule() -> None:
    found = diagnose(evidence(reason="PyTorchJobInvalid", message="spec.pytorchReplicaSpecs: no Master"))
    assert (found.cause, found.title) == ("job-invalid", "spec.pytorchReplicaSpecs: no Master")


def test_commands_can_be_pasted_whatever_the_folders_are_called() -> None:
    where = {"spec_file": "/my runs/f.yaml", "next_name": "f-2"}
    spec = {"data": {"path": "/my data"}, "train": {"deadlineSeconds": 60}}
    deadline = diagnose(evidence(reason=names.REASON_DEADLINE, spec=spec, **where))
    assert deadline.advice == "platform train -f '/my runs/f.yaml' --name f-2 --deadline-seconds 120"
    wrong = ended(1, message=said(0, 1, 1.0, "IndexError: Target 7 is out of bounds."))
    labels = diagnose(evidence(pod_of(raw_pod("master", 0, **wrong)), spec=spec, **where))
    assert labels.advice == "platform data check '/my data'"


@pytest.mark.parametrize(
    ("state", "more", "cause"),
    [
        ("Running", {}, "none"),
        ("Running", {"progress": {"lastEvent": 1e9 - 500, "step": 7}}, "quiet"),
        ("Restarting", {"status": {"cause": "Worker 0: rank 1 stalled"}}, "restarting"),
        ("Created", {}, "none"),
        ("Interrupted", {"supervisor_error": "OSError: full"}, "supervisor-failed"),
        ("Interrupted", {"rebooted": True}, "rebooted"),
        ("Succeeded", {"progress": {"archive": "/a.mar"}}, "none"),
        ("Failed", {}, "unknown"),
    ],
)
def test_every_state_has_an_answer(state: str, more: dict[str, Any], cause: str) -> None:
    found = diagnose(evidence(state=state, **more))
    assert found.cause == cause
    assert found.title
    assert found.advice
    json.dumps(found.to_dict())


def test_a_job_that_waits_since_long_is_pending() -> None:
    created = {"type": "Created", "status": "True", "lastTransitionTime": "2001-09-09T01:00:00Z"}
    found = diagnose(Evidence("flowers", "Created", now=1e9, status={"conditions": [created]}))
    assert found.cause == "pending"
    assert "2800 s" in found.title


def test_the_history_is_the_jobs_own_where_pods_are_gone() -> None:
    history = [
        {"generation": 1, "time": "2026-01-01T00:00:00Z", "cause": "Worker 0: its pod was deleted", "free": True},
        {"generation": 2, "time": "2026-01-01T00:01:00Z", "cause": "Master 0: rank 0 failed", "free": False},
    ]
    left = past_pod("flowers-master-0", 2, said(0, 1, 50.0, "No module named 'timm'"))
    found = diagnose(evidence(left, state="Running", status={"generation": 3, "history": history}))
    assert [(entry.generation, entry.cause, entry.counted) for entry in found.restarts] == [
        (1, "unknown", False),
        (2, "package-missing", True),
    ]
    assert found.restarts[0].title == "Worker 0: its pod was deleted"


def test_a_suspended_generation_is_no_restart() -> None:
    left = past_pod("flowers-master-0", 1, said(0, 143, 50.0))
    assert diagnose(evidence(left, state="Running", status={"generation": 2})).restarts == []


def test_lines_of_the_other_ranks_are_no_evidence() -> None:
    log = "[rank 0] OSError: No space left on device\n[rank 1] Traceback (most recent call last):\n"
    log += '[rank 1]   File "/home/me/train.py", line 3, in step\n[rank 1]     x = y\n[rank 1] NameError: y\n'
    pod = pod_of(raw_pod("master", 0, **ended(1, message=said(1, 1, 1.0))), log, ranks=(0, 1))
    found = diagnose(evidence(pod))
    assert found.cause == "exception"
    assert found.own_frames == ["/home/me/train.py:3 in step: x = y"]
    assert [victim.who for victim in found.victims] == ["rank 0"]


@pytest.mark.parametrize(
    ("code", "signal", "words"),
    [
        (None, "", "no exit code"),
        (0, "", "exit code 0: ended well"),
        (9, "", "exit code 9: an error of its own"),
        (65, "", "exit code 65: found the pictures wrong"),
        (139, "", "exit code 139: touched memory it must not (SIGSEGV, segmentation fault)"),
        (143, "SIGTERM", "exit code 143: stopped on SIGTERM, after its checkpoint"),
        (200, "", "exit code 200: lost contact with another rank"),
        (201, "", "exit code 201: made no step for too long"),
        (129, "", "exit code 129: was killed by SIGHUP"),
        (255, "", "exit code 255: an error of its own"),
    ],
)
def test_exit_codes_in_words(code: int | None, signal: str, words: str) -> None:
    assert exit_words(code, signal) == words
