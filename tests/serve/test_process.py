"""The start of a server, with a script in Java's place."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainserve.errors import EnvironmentProblem
from trainserve.machine import cgroup
from trainserve.serve import torchserve
from trainserve.serve.ports import Ports
from trainserve.serve.servers import claim

PORTS = Ports(rest=1, grpc=2, management=3, metrics=4, grpc_management=5)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINSERVE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def start(place: Path, tmp_path: Path, script: str) -> Any:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o700)
    mar = tmp_path / "m.mar"
    mar.write_bytes(b"")
    models: Any = {"m": SimpleNamespace(path=mar, description=SimpleNamespace(serve=SimpleNamespace(max_upload_mib=1)))}
    found: Any = SimpleNamespace(executable=java)
    return torchserve._process(place, models, PORTS, found, tmp_path)


def test_what_the_jvm_says_on_stdout_is_told(tmp_path: Path) -> None:
    said = "Could not reserve enough space for object heap"
    with claim("m") as record, start(record.parent, tmp_path, f"echo {said}; exit 1") as server:
        server.process.wait(30)
        with pytest.raises(EnvironmentProblem, match=f"ended with code 1: {said}"):
            server.check_alive()


def test_no_server_touches_the_files_of_another_whatever_its_name(home: Path, tmp_path: Path) -> None:
    others = ("m.log", "m.java", "m.log2", "m.folder")
    for other in others:
        with claim(other) as record:
            record.parent.joinpath("torchserve.log").touch()
    before = sorted(path for path in home.rglob("*") if path.is_file())
    assert len(before) == 2 * len(others)
    with claim("m") as record, start(record.parent, tmp_path, "exit 0") as server:
        server.process.wait(30)
    assert [path for path in before if not path.exists()] == []


def test_logs_of_the_start_before_are_gone(tmp_path: Path) -> None:
    with claim("m") as record:
        for name in ("torchserve.log", "torchserve.log.1"):
            record.parent.joinpath(name).write_text("Error: of before")
        with start(record.parent, tmp_path, "exit 1") as server:
            server.process.wait(30)
            with pytest.raises(EnvironmentProblem, match="it said nothing"):
                server.check_alive()


def test_as_many_workers_as_the_cpu_limit_gives_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").write_text("100000 100000\n")
    real = cgroup.cores
    monkeypatch.setattr(cgroup, "cores", lambda: real(root))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    with claim("m") as record, start(record.parent, tmp_path, "exec sleep 60") as server:
        folder = Path(record.with_name("folder").read_text())
        assert "default_workers_per_model=1\n" in (folder / "config.properties").read_text()
        assert server.process.poll() is None
