"""Whole runs through the command line, followed while they go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.command import command, environment, platform
from trainserve.observe import events

# Small enough to take seconds, large enough for several epochs, checkpoints and ranks.
SMALL: dict[str, object] = {
    "--nodes": 2,
    "--epochs": 4,
    "--batch-size": 8,
    "--image-size": 16,
    "--crop-scale": "0.8,1",
    "--checkpoint-every-steps": 2,
    "--workers": 0,
    "--warmup-epochs": 0,
    "--lr": 0.05,
}


class Live:
    """One `platform train` in a home of its own."""

    def __init__(self, home: Path, name: str, data: Path) -> None:
        self.home, self.name, self.data = home, name, data
        self.folder = home / "runs" / name

    @contextmanager
    def training(self, *options: object) -> Iterator[subprocess.Popen[str]]:
        """`platform train` in the foreground; killed, with its run, at the end if it still goes."""
        flags = [word for pair in SMALL.items() for word in pair]
        words = command("train", "--data", self.data, "--name", self.name, *flags, *options)
        with self._process(words) as process:
            yield process

    @contextmanager
    def resuming(self) -> Iterator[subprocess.Popen[str]]:
        """`platform train --resume`."""
        with self._process(command("train", "--resume", self.name)) as process:
            yield process

    @contextmanager
    def _process(self, words: list[str]) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            words,
            env=environment(self.home),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()  # the run then stops by itself
            process.communicate()

    def status(self) -> dict[str, Any]:
        """`platform status -o json`."""
        done = platform("status", self.name, "-o", "json", home=self.home)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def events(self) -> list[events.Event]:
        """All events so far."""
        return events.read(self.folder / "output" / "events.jsonl")[0]

    def wait_for(
        self, kind: str, where: Callable[[events.Event], bool] = lambda event: True, seconds: float = 120
    ) -> None:
        """Until an event is there."""
        until(
            lambda: any(e["kind"] == kind and where(e) for e in self.events()), f"{kind} event of {self.name}", seconds
        )

    def weights_digest(self) -> str:
        """Digest of the tensors in the bundle."""
        digest: str = json.loads((self.folder / "output" / "bundle" / "model.json").read_text())["weightsDigest"]
        return digest

    def pids(self) -> list[int]:
        """Every live process of the run: its supervisor, pods, ranks, by the run's folder in environment or command."""
        return [pid for pid in processes() if mentions(pid, str(self.folder))]


def gone(live: Live) -> bool:
    """Whether no process of the run is left, a moment after it ended."""
    until(lambda: live.pids() == [], f"no process of {live.name} left", 5)
    return True


def until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Poll until `condition` holds; fail naming `what`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


def processes() -> list[int]:
    """Ids of all processes but this one that are not zombies."""
    found = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()]
    return [pid for pid in found if _read(pid, "stat").rpartition(")")[2].split()[:1] not in ([], ["Z"])]


def mentions(pid: int, text: str) -> bool:
    """Whether a process has `text` in its command or environment."""
    return text in _read(pid, "cmdline") or text in _read(pid, "environ")


def _read(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C."""
    process.send_signal(signal.SIGINT)
