"""Ports of jobs: free, apart from the system's own, reserved across supervisors."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from trainserve.errors import EnvironmentProblem
from trainserve.launch import layout
from trainserve.machine import ports
from trainserve.machine.ports import Reserved, ephemeral_range, is_free


def test_one_owner_one_port_and_never_anothers(tmp_path: Path) -> None:
    here, there = Reserved(tmp_path), Reserved(tmp_path)
    mine = [here.port(f"job.g{n}") for n in range(5)]
    others = [there.port(f"job.g{n}") for n in range(5)]
    assert len({*mine, *others}) == 10
    assert here.port("job.g0") == mine[0]
    low, high = ephemeral_range()
    assert not any(low <= port <= high for port in mine)


def test_a_released_port_can_be_had_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "FIRST", 21_111)
    monkeypatch.setattr(ports, "LAST", 21_112)
    here, there = Reserved(tmp_path), Reserved(tmp_path)
    assert here.port("a") == 21_111
    with pytest.raises(EnvironmentProblem, match="no free port"):
        there.port("b")
    here.release("a")
    assert there.port("b") == 21_111
    there.release("b")


def test_a_foreign_listener_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        assert not is_free(foreign.getsockname()[1])


def test_an_asked_port_is_taken_as_it_is(tmp_path: Path) -> None:
    here = Reserved(tmp_path)
    assert here.port("a", 29_500) == 29_500
    here.release("a")
    here.release("a")


def test_a_folder_that_is_not_ours_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "ports").touch()
    with pytest.raises(EnvironmentProblem, match=r"no port can be reserved: .*ports: ") as caught:
        Reserved(tmp_path / "ports").port("a")
    assert "set TMPDIR" in str(caught.value)


def test_two_jobs_of_one_node_never_get_one_port() -> None:
    assert layout.own_port() != layout.own_port()
    low, high = ephemeral_range()
    assert not low <= layout.own_port() <= high
