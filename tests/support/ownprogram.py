"""A program of a user's own that answers on the port named progress, and is in a bad way: what alerts are for."""

from __future__ import annotations

import math
import time
from pathlib import Path

from trainserve.launch.progress import ProgressServer, listen
from trainserve.machine.ports import LOOPBACK, Reserved
from trainserve.observe import prometheus
from trainserve.observe.heartbeat import Pulse, create

BEGAN_S = 3600.0  # ago
GIB = float(1 << 30)


class OwnProgram:
    """`begin(1)`, `begin(2)` ...: the next start of its gang, at the same address; `break_`: it goes wrong."""

    def __init__(self, folder: Path) -> None:
        self._pulse = folder / "own-program.heartbeat"
        create(self._pulse)
        self._ports = Reserved()
        self.address = f"{LOOPBACK}:{self._ports.port('progress')}"
        self._server: ProgressServer | None = None

    def begin(self, generation: int) -> None:
        """A start that trains, slowly, on a GPU, and has saved nothing for an hour."""
        self.close_server()
        began = time.time() - BEGAN_S
        server = ProgressServer(listen(self.address), generation=generation, pulse=self._pulse)
        server.hear({"time": began, "kind": "start", "epochs": 2, "stepsPerEpoch": 100, "worldSize": 8})
        server.hear({"time": began, "kind": "step", "epoch": 1, "step": 7, "loss": 2.0, "lr": 0.1})
        server.ask_device(
            lambda: {prometheus.GPU_USED: 9 * GIB, prometheus.GPU_PEAK: 11 * GIB, prometheus.GPU_SIZE: 80 * GIB}
        )
        server.start()
        self._server = server

    def break_(self) -> None:
        """It hangs in a step whose loss is no number."""
        assert self._server is not None
        Pulse(self._pulse, stall_s=1).step(8)
        self._server.hear({"time": time.time(), "kind": "step", "epoch": 1, "step": 8, "loss": math.nan, "lr": 0.1})

    def close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def close(self) -> None:
        self.close_server()
        self._ports.release_all()
