from __future__ import annotations

from trainserve.operator.pytorchjob.conditions import finished_at, resume, set_condition


def _types(status: dict) -> list[tuple[str, str]]:
    return [(condition["type"], condition["status"]) for condition in status["conditions"]]


def _set(status: dict, kind: str, now: float = 0, message: str = "m") -> bool:
    return set_condition(status, kind, f"PyTorchJob{kind}", message, now)


def test_running_and_restarting_take_each_other_out() -> None:
    status: dict = {}
    for kind in ("Created", "Running", "Restarting"):
        assert _set(status, kind)
    assert _types(status) == [("Created", "True"), ("Restarting", "True")]
    assert _set(status, "Running")
    assert _types(status) == [("Created", "True"), ("Running", "True")]


def test_the_same_again_changes_nothing() -> None:
    status: dict = {}
    assert _set(status, "Created")
    assert not _set(status, "Created", now=99)
    assert status["conditions"][0]["lastUpdateTime"] == "1970-01-01T00:00:00Z"


def test_a_new_message_is_an_update_and_no_transition() -> None:
    status: dict = {}
    _set(status, "Restarting")
    assert _set(status, "Restarting", now=60, message="another")
    (condition,) = status["conditions"]
    assert condition["lastTransitionTime"] == "1970-01-01T00:00:00Z"
    assert condition["lastUpdateTime"] == "1970-01-01T00:01:00Z"


def test_the_end_turns_running_and_restarting_to_false_and_keeps_them() -> None:
    for before in ("Running", "Restarting"):
        for end in ("Succeeded", "Failed"):
            status: dict = {}
            _set(status, before)
            _set(status, end)
            assert _types(status) == [(before, "False"), (end, "True")]


def test_nothing_after_the_end() -> None:
    status: dict = {}
    _set(status, "Failed")
    assert not _set(status, "Running")
    assert not _set(status, "Succeeded")
    assert _types(status) == [("Failed", "True")]


def test_resumed_is_created_again() -> None:
    status: dict = {}
    for kind in ("Created", "Running", "Suspended"):
        _set(status, kind)
    assert _types(status)[-1] == ("Suspended", "True")
    resume(status, "PyTorchJobResumed", "m", 5)
    assert _types(status) == [("Suspended", "False"), ("Created", "True")]


def test_an_end_without_completion_time_is_dated_by_its_condition() -> None:
    status: dict = {}
    _set(status, "Failed", now=60)
    assert finished_at(status) == "1970-01-01T00:01:00Z"
    assert finished_at({**status, "completionTime": "2000-01-01T00:00:00Z"}) == "2000-01-01T00:00:00Z"
    assert finished_at({}) is None
