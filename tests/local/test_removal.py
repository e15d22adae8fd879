"""A run is removed whole, and never one that goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.runs import alive
from support.smallruns import SLEEP, home_of_runs, new_run, started
from trainserve.client.client import Client
from trainserve.client.listener import Listener
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.local import process, removal, rundir, start
from trainserve.local.rundir import RunDir
from trainserve.machine import temporary


class Heard(Listener):
    def __init__(self) -> None:
        self.said: list[str] = []

    def notice(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(temporary, "_ours", lambda _: iter(()))  # what lies in the machine's own is no test's
    yield from home_of_runs(tmp_path, monkeypatch)


def written(name: str, mib: int = 0) -> RunDir:
    run = rundir.create(name)
    (run.output / "weights").write_bytes(os.urandom(mib << 20))
    return run


def test_runs_go_and_what_they_took_is_told(home: Path) -> None:
    written("one", mib=2)
    written("two")
    heard = Heard()
    removed = Client(heard).remove("one", "two", "one")
    assert [each.name for each in removed] == ["one", "two"]
    assert removed[0].freed >= 2 << 20
    assert heard.said[0] == "one removed, 2.0 MiB freed"
    assert list((home / "runs").iterdir()) == []


def test_one_wrong_name_removes_nothing() -> None:
    written("one")
    with pytest.raises(UserError, match="did you mean 'one'"):
        Client().remove("one", "on")
    assert rundir.open_run("one")


def test_a_run_that_goes_on_is_refused_and_so_are_the_others_then() -> None:
    written("done")
    run = new_run("busy", SLEEP)
    start.start(run, detach=True)
    pids = started(run, 1, 1)
    with pytest.raises(UserError, match="run 'busy' is going on: it is not removed") as refused:
        Client().remove("done", "busy")
    assert "platform rm --force busy" in str(refused.value.hint)
    assert rundir.open_run("done")
    assert all(map(alive, pids))
    Client().remove("busy", force=True)
    assert not run.path.exists()
    assert not any(map(alive, pids))
    assert process.marked(run.pods_path) == []
    assert [each.name for each in rundir.all_runs()] == ["done"]


def test_killed_in_the_middle_nothing_of_it_is_listed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = written("half", mib=1)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            removal.remove(run)
    assert rundir.all_runs() == []
    found = Client().gc()
    assert [(item.kind, item.run) for item in found.items] == [("unfinished", None)]
    assert found.items[0].bytes >= 1 << 20
    assert Client().gc(yes=True).removed == found.items
    assert list((home / "runs").iterdir()) == []


def test_a_link_goes_and_what_it_leads_to_stays_and_is_told(tmp_path: Path) -> None:
    run = written("linked")
    elsewhere = tmp_path / "big disk"
    run.path.rename(elsewhere)
    run.path.symlink_to(elsewhere)
    heard = Heard()
    assert Client(heard).remove("linked")[0].kept == elsewhere
    assert "is still there" in heard.said[0]
    assert (elsewhere / "output" / "weights").exists()
    assert not run.path.is_symlink()


def test_a_folder_that_cannot_be_renamed_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    run = written("stuck")

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(EnvironmentProblem, match=r"run 'stuck' cannot be removed: .*: Operation not permitted"):
        removal.remove(run)
    assert (run.output / "weights").exists()
