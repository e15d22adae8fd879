"""Wait until a run is in a state."""

from __future__ import annotations

import time
from typing import Literal

from trainserve.client.runs import summary
from trainserve.errors import RunFailed, TimedOut
from trainserve.kube import names
from trainserve.local.rundir import RunDir
from trainserve.observe.summary import Summary
from trainserve.observe.words import duration

POLL_S = 0.2
Wanted = Literal["Succeeded", "Failed", "Suspended", "Interrupted", "Running", "Ended"]
ENDED = "Ended"  # not a state of its own: whichever, with no process left


def wait(run: RunDir, wanted: Wanted, timeout_s: float | None) -> Summary:
    """The run once it is as wanted; Running is also reached by a run that has succeeded meanwhile.

    Raises RunFailed when it has ended otherwise, TimedOut after `timeout_s`, EnvironmentProblem when it was removed.
    """
    give_up = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        run.check_there()
        alive = run.alive()  # before the state, which does not change any more once nobody is alive
        state = run.state()
        if _reached(wanted, state, alive=alive):
            return summary(run)
        if not alive:
            found = summary(run)
            raise RunFailed(
                f"{run.name} is {state}, not {wanted}" + (f": {found['message']}" if found["message"] else ""),
                hint=f"platform status {run.name}",
            )
        if give_up is not None and time.monotonic() >= give_up:
            raise TimedOut(
                f"{run.name} is {state} after {duration(timeout_s)}, not {wanted}", hint=f"platform status {run.name}"
            )
        time.sleep(POLL_S)


def _reached(wanted: Wanted, state: str, *, alive: bool) -> bool:
    if wanted == names.RUNNING:
        return state in (names.RUNNING, names.SUCCEEDED)
    # Whoever waits for an end does something with the run next: its supervisor is to be gone by then.
    return not alive and wanted in (state, ENDED)
