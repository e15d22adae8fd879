"""The termination message as a document, and which failure is the first."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainserve.launch.termination import MAX_BYTES, Failure, cause, encode, first


@given(message=st.text(max_size=6000), traceback=st.text(max_size=20_000))
def test_message_is_json_that_fits(message: str, traceback: str) -> None:
    text = encode(Failure(3, 1, 1.5, None, message, traceback), oom_kills=2)
    assert len(text.encode()) <= MAX_BYTES
    document = json.loads(text)
    assert (document["rank"], document["exitCode"], document["oomKills"]) == (3, 1, 2)
    assert traceback.endswith(document["traceback"])
    assert message.startswith(document["message"])


def failed(rank: int, code: int, signal: str | None = None) -> Failure:
    return Failure(rank, code, float(rank), signal)


@pytest.mark.parametrize(
    ("own", "asked", "rank"),
    [
        ([failed(0, 1), failed(1, 2)], [], 0),
        ([failed(0, 200), failed(1, 2)], [], 1),
        ([failed(0, 200)], [failed(1, 143), failed(2, 9)], 2),
        ([failed(0, 200)], [failed(1, 137, "SIGKILL")], 0),
        ([failed(0, 5)], [failed(1, 9)], 0),
        ([failed(0, 143), failed(1, 143)], [], 0),
    ],
)
def test_first_failure(own: list[Failure], asked: list[Failure], rank: int) -> None:
    found = first(own, asked)
    assert found is not None
    assert found.rank == rank


def test_no_failure() -> None:
    assert first([]) is None


def test_killed_for_memory_is_said() -> None:
    assert cause(failed(2, 137, "SIGKILL"), 1) == (
        "rank 2 was killed by SIGKILL because memory ran out (exit code 137)"
    )
