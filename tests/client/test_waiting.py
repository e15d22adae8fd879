"""Waiting for a state."""

from __future__ import annotations

from typing import Any

import pytest

from trainserve.client import waiting
from trainserve.errors import RunFailed, TimedOut


class Run:
    """A run that goes through states, one a look; `-` before a state: nobody is alive then."""

    name = "mine"

    def __init__(self, *states: str) -> None:
        self.states = list(states)

    def check_there(self) -> None:
        pass

    def alive(self) -> bool:
        return not self.states[0].startswith("-")

    def state(self) -> str:
        return self.states[0].lstrip("-")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "summary", lambda run: {"state": run.state(), "message": "because"})


def wait(run: Run, wanted: Any, monkeypatch: pytest.MonkeyPatch, timeout_s: float | None = None) -> str:
    seconds = iter(range(100))
    monkeypatch.setattr(waiting.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(waiting.time, "sleep", lambda _: run.states.pop(0))
    return waiting.wait(run, wanted, timeout_s)["state"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "states"),
    [
        ("Succeeded", ["Pending", "Running", "Succeeded", "-Succeeded"]),
        ("Failed", ["-Failed"]),
        ("Suspended", ["Running", "-Suspended"]),
        ("Running", ["Pending", "Created", "Running"]),
        ("Running", ["-Succeeded"]),
        ("Ended", ["Running", "-Interrupted"]),
    ],
)
def test_reached(wanted: str, states: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert wait(Run(*states), wanted, monkeypatch) == states[-1].lstrip("-")


@pytest.mark.parametrize(
    ("wanted", "end"), [("Succeeded", "Suspended"), ("Running", "Failed"), ("Failed", "Succeeded")]
)
def test_ended_otherwise(wanted: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunFailed, match=f"mine is {end}, not {wanted}: because"):
        wait(Run("Pending", f"-{end}"), wanted, monkeypatch)


def test_a_run_that_has_ended_but_is_still_ending_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("Suspended", "Suspended", "-Suspended")
    assert wait(run, "Suspended", monkeypatch) == "Suspended"
    assert run.states == ["-Suspended"]


def test_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimedOut, match="mine is Running after 3s, not Succeeded") as error:
        wait(Run(*["Running"] * 50), "Succeeded", monkeypatch, timeout_s=3)
    assert error.value.exit_code == 124
