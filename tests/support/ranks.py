"""Real training ranks as processes of this machine, without agent or controller."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainserve.observe.events import Event, read
from trainserve.spec.classifier import Classifier


def classifier(path: Path, *, train: dict[str, Any] | None = None, **spec: Any) -> Classifier:
    """A small Classifier on the pictures in `path`."""
    spec = {**spec, "data": {"path": str(path), **spec.get("data", {})}, "train": train or {}}
    return Classifier.model_validate(
        {"apiVersion": "trainserve.dev/v1alpha1", "kind": "Classifier", "metadata": {"name": "tiny"}, "spec": spec}
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class Ranks:
    """All ranks of one job. Use as a context manager: what still runs is killed at the end."""

    spec: Classifier
    output: Path
    count: int = 1
    port: int = 0
    program: tuple[str, ...] = ("-m", "trainserve.launch.work")
    env: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> Ranks:
        self.port = self.port or free_port()
        self.output.mkdir(parents=True, exist_ok=True)
        self.processes = [self._start(rank) for rank in range(self.count)]
        return self

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        env = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": "0",
            "WORLD_SIZE": str(self.count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
            "OMP_NUM_THREADS": "1",
            "TRAINSERVE_SPEC": self.spec.model_dump_json(by_alias=True),
            "TRAINSERVE_OUTPUT": str(self.output),
            "TRAINSERVE_PEER_TIMEOUT_S": "60",
            "TORCHELASTIC_ERROR_FILE": str(self.output / f"error-{rank}.json"),
            **self.env,
        }
        with (self.output / f"log-{rank}").open("ab") as log:
            return subprocess.Popen([sys.executable, *self.program], env=env, stdout=log, stderr=log)

    def __enter__(self) -> Ranks:
        return self.start()

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def codes(self, timeout_s: float = 150) -> list[int]:
        """Exit codes, as soon as all have ended."""
        limit = time.monotonic() + timeout_s
        return [process.wait(max(0.1, limit - time.monotonic())) for process in self.processes]

    def kill(self, number: int = signal.SIGKILL, ranks: tuple[int, ...] | None = None) -> None:
        for rank, process in enumerate(self.processes):
            if ranks is None or rank in ranks:
                process.send_signal(number)

    def events(self, kind: str | None = None) -> list[Event]:
        found, _ = read(self.output / "events.jsonl")
        return [event for event in found if kind is None or event["kind"] == kind]

    def log(self, rank: int = 0) -> str:
        return (self.output / f"log-{rank}").read_text(errors="replace")

    def wait_for(self, happened: Callable[[], Any], timeout_s: float = 100) -> None:
        """Until `happened()` is true; fails when all ranks ended before, or after `timeout_s`."""
        limit = time.monotonic() + timeout_s
        while not happened():
            ended = all(process.poll() is not None for process in self.processes)
            assert not ended or happened(), f"ranks ended first: {self.log()}"
            assert time.monotonic() < limit, f"did not happen: {self.log()}"
            time.sleep(0.02)
