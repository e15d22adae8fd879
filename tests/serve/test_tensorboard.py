"""TensorBoard over runs: the real one, asked for a run's curves, and nothing left of it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from support.command import command, environment, platform
from support.live import mentions, processes, until
from trainserve.serve.tensorboard import running


def run_with_curves(home: Path, name: str, **scalars: float) -> Path:
    """A run's folder with event files only."""
    folder = home / "runs" / name / "output" / "tensorboard"
    folder.mkdir(parents=True)
    with SummaryWriter(str(folder)) as writer:
        for tag, value in scalars.items():
            writer.add_scalar(tag, value, 1)
    return folder


def ask(url: str) -> object:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
        return json.load(answer)


def tags_of(url: str, runs: set[str]) -> dict[str, dict[str, object]]:
    """Scalars by run, once all these runs are read, which happens some time after the first answer."""
    found: dict[str, dict[str, object]] = {}
    give_up = time.monotonic() + 60
    while set(found) < runs:
        assert time.monotonic() < give_up, found
        found = ask(f"{url}/data/plugin/scalars/tags")  # type: ignore[assignment]
        time.sleep(0.2)
    return found


@pytest.mark.slow
def test_the_command_shows_the_runs_by_name_and_leaves_no_process(tmp_path: Path) -> None:
    run_with_curves(tmp_path / "home", "first", loss=2.5)
    run_with_curves(tmp_path / "home", "second", loss=1.5, lr=0.1)
    (tmp_path / "home" / "runs" / "empty" / "output").mkdir(parents=True)
    env = {**environment(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command("tensorboard", "second", "first", "empty", "-o", "json"),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            decoder, text = json.JSONDecoder(), ""
            while not text.rstrip().endswith("}"):
                line = process.stdout.readline()
                assert line, process.stderr.read()
                text += line
            ready = decoder.decode(text)
            assert ready["runs"] == ["second", "first"]
            tags = tags_of(ready["url"], {"first", "second"})
            values = ask(f"{ready['url']}/data/plugin/scalars/scalars?run=second&tag=loss")
            pids = [pid for pid in processes() if mentions(pid, "tensorboard.main") and mentions(pid, str(tmp_path))]
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            said = process.stderr.read()
        finally:
            process.kill()
    assert {run: set(found) for run, found in tags.items()} == {"first": {"loss"}, "second": {"loss", "lr"}}
    assert values[0][1:] == [1, 1.5]  # type: ignore[index]
    assert "empty has no curves" in said
    assert "stopped" in said
    assert pids
    until(lambda: not set(pids) & set(processes()), "no process of TensorBoard left", 10)
    assert not list(tmp_path.glob("trainserve-tensorboard-*"))


@pytest.mark.slow
def test_it_ends_with_a_killed_command(tmp_path: Path) -> None:
    run_with_curves(tmp_path / "home", "first", loss=2.5)
    env = {**environment(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command("tensorboard", "first", "-o", "name"), env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("http://127.0.0.1:")
        finally:
            process.kill()
    until(lambda: not [pid for pid in processes() if mentions(pid, str(tmp_path))], "nothing left", 20)
    assert not list(tmp_path.glob("trainserve-tensorboard-*"))


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    run_with_curves(tmp_path, "first", loss=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = platform("tensorboard", "first", "--port", port, home=tmp_path)
    assert done.returncode == 3
    assert f"--port {port}: port {port} on 127.0.0.1 is in use" in done.stderr
    assert "--port 0 for a free one" in done.stderr


def test_runs_without_curves_are_told(tmp_path: Path) -> None:
    (tmp_path / "runs" / "empty" / "output").mkdir(parents=True)
    for words, says in ((["empty"], "no curves to show: empty"), ([], "no curves to show: empty")):
        done = platform("tensorboard", *words, home=tmp_path)
        assert done.returncode == 2
        assert says in done.stderr
    assert platform("tensorboard", "emty", home=tmp_path).stderr.startswith("error: no such run 'emty'")
    assert "a port is a number" in platform("tensorboard", "empty", "--port", 70000, home=tmp_path).stderr


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Exception, match="tensorboard is not installed here") as caught, running({}):
        pass
    assert "trainserve[train]" in str(caught.value)
