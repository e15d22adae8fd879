"""The sign of life of this rank, for its node's agent; a user's own program may give one too.

from trainserve.launch.pulse import open_pulse

pulse = open_pulse()
for step, batch in enumerate(batches, 1):
    ...
    pulse.step(step)
"""

from __future__ import annotations

import faulthandler
import os
import signal
from typing import IO

from trainserve.kube.names import ENV_HEARTBEAT
from trainserve.observe.heartbeat import PEER_TIMEOUT_S, Pulse, of_environment, stacks_path

_kept: list[IO[str]] = []  # what faulthandler writes to must stay open


def open_pulse(*, stall_s: float | None = None, peer_s: float = PEER_TIMEOUT_S) -> Pulse:
    """This rank's pulse (observe.heartbeat.Pulse): silent where no agent watches. Not watched before its first sign.

    From now on SIGUSR1 writes the stacks of all threads where the agent looks for them, also while C code hangs.
    """
    path = of_environment(os.environ.get(ENV_HEARTBEAT))
    pulse = Pulse(path, stall_s=stall_s, peer_s=peer_s)
    if path is not None:
        file = stacks_path(path).open("a")
        faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)
        _kept.append(file)
        pulse.answers()
    return pulse
