from __future__ import annotations

import pytest

from trainserve.operator.pytorchjob.failure import Cause, Failure, failure_of, first_failure
from trainserve.operator.pytorchjob.observed import Pod
from trainserve.operator.pytorchjob.reading import observe


def _pod(status: dict, **metadata: object) -> Pod:
    raw = {
        "metadata": {
            "name": "flowers-worker-2",
            "uid": "u",
            "labels": {
                "training.kubeflow.org/replica-type": "worker",
                "training.kubeflow.org/replica-index": "2",
                "trainserve.dev/generation": "1",
            },
            "ownerReferences": [{"uid": "job", "controller": True}],
            **metadata,
        },
        "spec": {"restartPolicy": "Never"},
        "status": status,
    }
    (pod,) = observe({"metadata": {"uid": "job"}}, [raw], []).pods
    return pod


def _ended(code: int | None, phase: str = "Failed", **terminated: object) -> dict:
    end = {**({} if code is None else {"exitCode": code}), **terminated}
    return {"phase": phase, "containerStatuses": [{"name": "pytorch", "state": {"terminated": end}}]}


@pytest.mark.parametrize(
    ("status", "cause", "sentence"),
    [
        (_ended(1), Cause.PERMANENT, "Worker 2: exit code 1"),
        (
            _ended(1, message="Traceback\n  ...\nKeyError: 'x'\n"),
            Cause.PERMANENT,
            "Worker 2: exit code 1: KeyError: 'x'",
        ),
        (_ended(137), Cause.RETRYABLE, "Worker 2: exit code 137 (SIGKILL)"),
        (_ended(128), Cause.RETRYABLE, "Worker 2: exit code 128"),
        (_ended(250), Cause.RETRYABLE, "Worker 2: exit code 250"),
        (_ended(143), Cause.STOPPED, "Worker 2: exit code 143 (SIGTERM)"),
        (_ended(200), Cause.VICTIM, "Worker 2: exit code 200"),
        (_ended(201), Cause.STALLED, "Worker 2: exit code 201"),
        (_ended(None), Cause.UNKNOWN, "Worker 2: ended without an exit code"),
        (_ended(128, reason="StartError"), Cause.PERMANENT, "Worker 2: StartError, exit code 128"),
        (_ended(137, reason="OOMKilled"), Cause.OUT_OF_MEMORY, "Worker 2: its container was killed: out of memory"),
        ({"phase": "Failed", "reason": "Evicted"}, Cause.TAKEN_AWAY, "Worker 2: Evicted"),
        ({"phase": "Failed"}, Cause.UNKNOWN, "Worker 2: ended without an exit code"),
        # A sidecar keeps the pod Running; the rank is gone all the same.
        (_ended(1, phase="Running"), Cause.PERMANENT, "Worker 2: exit code 1"),
        (
            {
                **_ended(137),
                "conditions": [{"type": "DisruptionTarget", "status": "True", "message": "preempted by x"}],
            },
            Cause.TAKEN_AWAY,
            "Worker 2: the cluster took its pod away: preempted by x",
        ),
        (
            {
                "phase": "Failed",
                "initContainerStatuses": [{"name": "init-pytorch", "state": {"terminated": {"exitCode": 200}}}],
            },
            Cause.VICTIM,
            "Worker 2: exit code 200",
        ),
    ],
)
def test_causes(status: dict, cause: Cause, sentence: str) -> None:
    failure = failure_of(_pod(status), now=0)
    assert failure is not None
    assert failure.cause is cause
    assert failure.sentence.startswith(sentence)


@pytest.mark.parametrize("status", [{}, {"phase": "Running"}, _ended(0, phase="Succeeded"), _ended(0, phase="Running")])
def test_no_failure(status: dict) -> None:
    assert failure_of(_pod(status), now=0) is None


def test_being_deleted_is_dated_when_it_was_asked_for() -> None:
    going = _pod({"phase": "Running"}, deletionTimestamp="1970-01-01T00:01:40Z", deletionGracePeriodSeconds=30)
    failure = failure_of(going, now=0)
    assert failure is not None
    assert (failure.cause, failure.time) == (Cause.TAKEN_AWAY, 70)


def test_a_termination_message_of_somebody_else_is_only_text() -> None:
    for message in ('"text"', "[1]", "{", '{"time": "soon"}', "{}"):
        failure = failure_of(_pod(_ended(3, message=message)), now=5)
        assert failure is not None
        assert failure.time == 5


def _failure(cause: Cause, time: float, exact: bool = True, index: int = 0) -> Failure:
    return Failure("Worker", index, cause, time, exact, "s")


def test_the_earliest_is_the_first() -> None:
    first = _failure(Cause.RETRYABLE, 10.1)
    assert first_failure([_failure(Cause.PERMANENT, 10.2), first, _failure(Cause.OUT_OF_MEMORY, 30)]) is first


def test_victims_are_never_the_cause_of_others() -> None:
    first = _failure(Cause.PERMANENT, 60)
    assert first_failure([_failure(Cause.VICTIM, 1), first]) is first


def test_within_one_second_not_known_exactly_the_kind_decides() -> None:
    first = _failure(Cause.OUT_OF_MEMORY, 10, exact=False)
    assert first_failure([_failure(Cause.PERMANENT, 10.2), first]) is first
    killed = _failure(Cause.RETRYABLE, 10, exact=False)
    assert first_failure([_failure(Cause.PERMANENT, 10, exact=False), killed]) is killed
