from __future__ import annotations

import errno
import os
import shutil

import pytest

from trainserve.errors import EnvironmentProblem
from trainserve.observe.events import read
from trainserve.observe.writer import EventWriter


def test_events_are_appended_and_read_back(tmp_path):
    path = tmp_path / "deep" / "events.jsonl"
    EventWriter(path, now=lambda: 1.0).write("notice", message="één")
    writer = EventWriter(path, now=lambda: 2.0)
    writer.write("step", epoch=1, step=3, loss=0.5)
    writer.close()
    events, offset = read(path)
    assert events == [
        {"time": 1.0, "kind": "notice", "message": "één"},
        {"time": 2.0, "kind": "step", "epoch": 1, "step": 3, "loss": 0.5},
    ]
    assert offset == path.stat().st_size
    assert read(path, offset) == ([], offset)


def test_a_torn_line_harms_no_other(tmp_path):
    path = tmp_path / "events.jsonl"
    EventWriter(path).write("notice", message="a")
    with path.open("a") as file:
        file.write('{"time": 1, "kind": "st')
    events, offset = read(path)
    assert len(events) == 1
    EventWriter(path).write("notice", message="b")
    assert [event["message"] for event in read(path)[0]] == ["a", "b"]
    assert [event["message"] for event in read(path, offset)[0]] == ["b"]


def test_steps_are_due_twice_a_second_whatever_the_wall_clock_does(tmp_path):
    now = [10.0]
    wall = iter(range(10_000, 0, -100))  # set back all the time
    writer = EventWriter(tmp_path / "events.jsonl", now=lambda: next(wall), monotonic=lambda: now[0])
    due = []
    for _ in range(20):
        due.append(writer.step_is_due())
        writer.write("notice", message="x")
        now[0] += 0.1
    assert 4 <= sum(due) <= 5


def test_not_a_number_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        EventWriter(tmp_path / "events.jsonl").write("step", loss=float("nan"))


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "free some space there"), (errno.EACCES, "check its permissions")]
)
def test_a_disk_that_refuses_is_told_with_what_helps(number, hint, tmp_path, monkeypatch):
    writer = EventWriter(tmp_path / "events.jsonl")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(EnvironmentProblem, match=os.strerror(number)) as refused:
        writer.write("notice", message="x")
    assert refused.value.hint == hint


def test_a_file_that_was_removed_is_made_anew_and_readers_begin_with_it(tmp_path):
    path = tmp_path / "output" / "events.jsonl"
    writer = EventWriter(path)
    for step in range(1, 4):
        writer.write("step", step=step)
    _, offset = read(path)
    shutil.rmtree(path.parent)
    writer.write("step", step=4)
    writer.close()
    found, offset = read(path, offset)
    assert [event["step"] for event in found] == [4]
    assert read(path, offset) == ([], offset)
