"""Several runs are stopped side by side, and nobody is told what is not so."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from support.tiny import tiny_run
from trainserve.client import stop
from trainserve.client.client import Client
from trainserve.client.listener import Lines
from trainserve.errors import EnvironmentProblem
from trainserve.local import ending
from trainserve.local.rundir import RunDir


class Going:
    """Runs that count as going until `end` is called for them."""

    def __init__(self, *names: str) -> None:
        self.locks = {name: tiny_run(name, "").lock() for name in names}

    def end(self, run: RunDir) -> bool:
        os.close(self.locks.pop(run.name))
        return True


@pytest.fixture
def said() -> list[str]:
    return []


def test_runs_are_stopped_side_by_side(home: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    going = Going("one", "two", "three")
    together = threading.Barrier(3)

    def suspend(run: RunDir, _reason: str, *, grace_s: float | None) -> bool:
        together.wait(30)  # broken, as an error, where they come one after the other
        assert grace_s is None
        return going.end(run) and run.name != "two"

    monkeypatch.setattr(stop, "suspend", suspend)
    assert [run["name"] for run in Client(Lines(said.append)).cancel("one", "two", "three")] == ["one", "two", "three"]
    assert said[:3] == [f"stopping {name} after a checkpoint (Ctrl-C: do not wait)" for name in ("one", "two", "three")]
    assert said[3:] == ["the supervisor of two did not answer: it was killed; the newest checkpoint stays"]


def test_one_that_cannot_be_stopped_or_read_keeps_no_other_from_it(
    home: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    going = Going("stuck", "good")
    (tiny_run("torn", "").path / "objects.json").write_text("{")

    def suspend(run: RunDir, *_: object, **__: object) -> bool:
        going.end(run)
        if run.name == "stuck":
            raise EnvironmentProblem("it does not end")
        return True

    monkeypatch.setattr(stop, "suspend", suspend)
    with pytest.raises(EnvironmentProblem, match="it does not end"):
        Client(Lines(said.append)).cancel("torn", "stuck", "good")
    assert going.locks == {}
    assert [run["state"] for run in Client().cancel("torn", "good")] == ["Damaged", "Interrupted"]


def test_ctrl_c_tells_of_each_run_whether_it_was_reached(
    home: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    going = Going("reached", "late")
    waiting, over = threading.Event(), threading.Event()

    def suspend(run: RunDir, *_: object, **__: object) -> bool:
        if run.name == "late":
            assert waiting.wait(30)
            os.kill(os.getpid(), signal.SIGINT)
            over.wait(30)
        return True

    def settle(*_: object) -> bool:
        waiting.set()
        return over.wait(30)

    monkeypatch.setattr(stop, "suspend", suspend)
    monkeypatch.setattr(ending, "settle", settle)
    with pytest.raises(KeyboardInterrupt):
        Client(Lines(said.append)).cancel("reached", "late")
    over.set()
    assert said[2:] == [
        "reached goes on stopping in the background:\n  platform status reached\n  platform cancel --now reached",
        "late was not reached yet, and goes on:\n  platform cancel late",
    ]
    for lock in going.locks.values():
        os.close(lock)
