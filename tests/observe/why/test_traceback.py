from __future__ import annotations

from trainserve.observe.why import traceback as stacks

CHAINED = """\
noise
Traceback (most recent call last):
  File "/home/me/a.py", line 1, in <module>
    f()
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/home/me/b.py", line 2, in g
    h(x)
    ^^^^
  File "/usr/lib/python3.11/json/decoder.py", line 5, in decode
    raise E
ValueError: second
something a logger says later
"""
WORKER = """\
Traceback (most recent call last):
  File "/home/me/t.py", line 9, in <module>
    for x in loader:
ValueError: Caught ValueError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "/x/site-packages/torch/worker.py", line 3, in loop
    fetch()
ValueError: no picture 7

after
"""
FATAL = """\
Fatal Python error: Segmentation fault

Current thread 0x1 (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/home/me/crash.py", line 5 in main

Extension modules: numpy (total: 1)
"""


def test_the_last_traceback_up_to_its_error() -> None:
    found = stacks.last(CHAINED)
    assert found.startswith("Traceback")
    assert found.endswith("ValueError: second")
    assert "KeyError" not in found
    assert stacks.last("nothing") == ""


def test_the_error_of_a_data_worker_has_a_traceback_of_its_own() -> None:
    found = stacks.last(WORKER)
    assert found.startswith("Traceback")
    assert found.endswith("ValueError: no picture 7")
    assert "Caught ValueError in DataLoader worker process 0." in stacks.errors(found)


def test_frames_have_the_innermost_last_and_know_whose_they_are() -> None:
    own = [str(frame) for frame in stacks.frames(stacks.last(CHAINED)) if frame.own]
    assert own == ["/home/me/b.py:2 in g: h(x)"]
    fatal = stacks.frames(stacks.last(FATAL))
    assert [frame.function for frame in fatal] == ["main", "string_at"]
    assert "Extension" not in stacks.last(FATAL)
    ours = stacks.Frame("/opt/venv/lib/x/trainserve/train/loop.py", 1, "fit")
    assert not ours.own
    assert stacks.Frame("/home/me/trainserve.py", 1, "f").own


def test_a_long_traceback_shows_the_users_frames_and_its_end() -> None:
    lines = ["Traceback (most recent call last):", '  File "/home/me/mine.py", line 3, in mine', "    deep()"]
    for depth in range(20):
        lines += [f'  File "/x/site-packages/lib.py", line {depth}, in f{depth}', "    g()"]
    found = stacks.excerpt("\n".join([*lines, "ValueError: deep"]))
    assert found[0] == "  /home/me/mine.py:3 in mine: deep()"
    assert found[-1] == "ValueError: deep"
    assert len(found) <= stacks.SHOWN_LINES + 2


def test_lines_of_one_rank() -> None:
    log = "[rank 0] a\n[rank 1] b\nagent\n"
    assert stacks.lines_of_rank(log, 1, (0, 1)) == "b"
    assert stacks.lines_of_rank(log, 0, (0,)) == log
