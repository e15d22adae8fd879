"""Log lines and events as they come."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainserve.client import logs
from trainserve.errors import EnvironmentProblem, UserError
from trainserve.local import rundir
from trainserve.local.rundir import RunDir
from trainserve.machine import locks
from trainserve.observe.events import encode


def with_log(name: str, data: bytes) -> tuple[RunDir, Path]:
    run = rundir.create(name)
    log = run.pods_path / f"{name}-master-0.g1" / "pytorch.log"
    log.parent.mkdir()
    log.write_bytes(data)
    return run, log


def texts(run: RunDir) -> list[str]:
    return [line.text for line in logs.lines(run)]


def test_a_line_is_what_a_newline_ends_whatever_else_is_in_it(home: Path) -> None:
    run, _ = with_log("mine", "a\r\nb\rc\n\nd\u2028e\x0cf\n".encode() + b"\xff\n" + b"torn")
    assert texts(run) == ["a", "b\rc", "", "d\u2028e\x0cf", "\ufffd", "torn"]
    assert str(next(iter(logs.lines(run)))) == "[mine-master-0.g1] a"


def test_a_line_without_end_comes_in_parts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LONGEST_LINE", 4)
    run, _ = with_log("mine", b"abcdefghij\nk\n")
    assert texts(run) == ["abcd", "efgh", "ij", "k"]


def test_following_waits_for_the_rest_of_a_line_and_ends_with_the_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, log = with_log("mine", b"one\ntw")
    held = locks.take(run.path / "lock")
    assert held is not None

    def write(data: bytes) -> None:
        with log.open("ab") as file:
            file.write(data)

    turns = [lambda: write(b"o\nthr"), lambda: write(b"ee"), lambda: os.close(held)]
    monkeypatch.setattr(logs.time, "sleep", lambda _: turns.pop(0)())
    assert [line.text for line in logs.lines(run, follow=True)] == ["one", "two", "three"]
    assert turns == []


def test_no_log_no_rank_no_folder(home: Path) -> None:
    run = rundir.create("mine")
    with pytest.raises(UserError, match="has no log yet: its state is Interrupted") as refused:
        list(logs.lines(run))
    assert refused.value.hint == "platform resume mine goes on with it"
    held = locks.take(run.path / "lock")
    assert held is not None
    with pytest.raises(UserError, match="has no log yet: its state is Pending") as refused:
        list(logs.lines(run))
    assert refused.value.hint == "platform logs -f mine waits for it"
    os.close(held)
    run, _ = with_log("other", b"x\n")
    with pytest.raises(UserError, match="has no rank 7"):
        list(logs.lines(run, rank=7))
    run.path.rename(home / "elsewhere")
    with pytest.raises(EnvironmentProblem, match="no longer there"):
        list(logs.lines(run))


def test_events_are_followed_to_the_end_of_the_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = rundir.create("mine")
    held = locks.take(run.path / "lock")
    assert held is not None

    def later(_: float) -> None:
        run.events_path.write_text(encode({"time": 1, "kind": "step", "step": 1}) + '{"time": 2, "kind"')
        os.close(held)

    monkeypatch.setattr(logs.time, "sleep", later)
    assert [event["kind"] for event in logs.run_events(run, follow=True)] == ["step"]


def test_the_newest_lines_and_what_was_before_the_newest_start(home: Path) -> None:
    run, log = with_log("mine", b"a\nb\nc\n")
    assert [line.text for line in logs.lines(run, tail=2)] == ["b", "c"]
    assert [line.text for line in logs.lines(run, tail=9)] == ["a", "b", "c"]
    assert [line.text for line in logs.lines(run, tail=0)] == []
    with pytest.raises(UserError, match="'mine' was started once only"):
        list(logs.lines(run, previous=True))
    newer = run.pods_path / "mine-master-0.g2" / log.name
    newer.parent.mkdir()
    newer.write_bytes(b"d\ne\n")
    assert [str(line) for line in logs.lines(run, tail=1)] == ["[mine-master-0.g1] c", "[mine-master-0.g2] e"]
    assert [line.text for line in logs.lines(run, previous=True)] == ["a", "b", "c"]
