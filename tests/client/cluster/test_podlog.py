"""Each line of a container's log once, over connections that break off anywhere."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.containerlogs import ContainerLog
from trainserve.client.cluster import podlog
from trainserve.client.cluster.podlog import Lines


def stamped(second: int, text: str) -> bytes:
    return f"2026-11-25T12:00:{second:02}.5Z {text}\n".encode()


def test_moments_are_taken_off_and_pieces_put_together() -> None:
    lines = Lines()
    whole = stamped(1, "a") + stamped(2, "") + stamped(2, "b\u00e9")
    found = [text for start in range(0, len(whole), 3) for text in lines.feed(whole[start : start + 3])]
    assert found == ["a", "", "b\u00e9"]
    assert lines.since == "2026-11-25T12:00:02Z"


def test_what_comes_again_after_a_break_is_passed_over_and_what_is_new_is_not() -> None:
    lines = Lines()
    assert list(lines.feed(stamped(1, "a") + stamped(2, "b") + stamped(2, "c") + stamped(2, "half")[:-3])) == [
        "a",
        "b",
        "c",
    ]
    lines.again()
    assert list(lines.feed(stamped(2, "b") + stamped(2, "c") + stamped(2, "half") + stamped(3, "d"))) == ["half", "d"]
    lines.again()
    assert list(lines.feed(stamped(3, "d"))) == []


def test_lines_that_the_node_has_thrown_away_are_not_waited_for() -> None:
    lines = Lines()
    assert list(lines.feed(stamped(1, "a") + stamped(1, "b"))) == ["a", "b"]
    lines.again()
    assert list(lines.feed(stamped(5, "e") + stamped(5, "f"))) == ["e", "f"]


def test_a_line_without_end_comes_at_the_end_and_one_that_is_too_long_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podlog, "LONGEST_LINE", 64)
    lines = Lines()
    found = list(lines.feed(stamped(1, "x" * 100)[:-1])) + list(lines.feed(b"yz\n" + stamped(2, "next")[:-1]))
    assert "".join(found) == "x" * 100 + "yz"
    assert list(lines.end()) == ["next"]
    assert list(lines.end()) == []


def test_what_the_kubelet_says_itself_has_no_moment() -> None:
    assert list(Lines().feed(b"unable to retrieve container logs for x\n")) == [
        "unable to retrieve container logs for x"
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_line_once_and_in_order_whatever_breaks_off(data: st.DataObject) -> None:
    log, written, got = ContainerLog(), [], []
    lines = Lines()

    async def connection() -> None:
        lines.again()
        since = {} if lines.since is None else {"sinceTime": lines.since}
        left = data.draw(st.integers(0, 400), "bytes until the way breaks off")
        async for piece in log.read(since):
            size = data.draw(st.integers(1, 50), "size of a piece")
            for start in range(0, min(left, len(piece)), size):
                got.extend(lines.feed(piece[start : min(left, start + size)]))
            left -= len(piece)

    moment = 0.0
    for number in range(data.draw(st.integers(0, 25), "lines")):
        moment += data.draw(st.sampled_from([0.0, 0.1, 0.6, 3.0]), "seconds until the next line")
        log.write(f"line {number}", after_s=moment)
        written.append(f"line {number}")
        if data.draw(st.booleans(), "read now"):
            asyncio.run(connection())
            assert got == written[: len(got)]
    lines.again()

    async def the_rest() -> None:
        since = {} if lines.since is None else {"sinceTime": lines.since}
        async for piece in log.read(since):
            got.extend(lines.feed(piece))

    asyncio.run(the_rest())
    assert got == written
