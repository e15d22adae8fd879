"""Stop runs, with a checkpoint or at once, and wait until they are as asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence

from trainserve.client.listener import Listener
from trainserve.errors import EnvironmentProblem
from trainserve.kube import names
from trainserve.local import control
from trainserve.local.rundir import RunDir

POLL_S = 0.1
ANSWER_S = 10.0  # a supervisor listens within a second of taking its lock
WAIT_S = names.STOP_GRACE_S + 30.0  # until the pods are killed, and what then has to end


def suspend(run: RunDir, reason: str, *, grace_s: int | None = None) -> None:
    """Ask the run's supervisor to checkpoint and stop. Nothing to do when it has just ended by itself.

    `grace_s` is how long its processes may take, 0 is not at all; None is the supervisor's own choice.
    """
    give_up = time.monotonic() + ANSWER_S
    while run.alive():
        try:
            grace = {} if grace_s is None else {"graceSeconds": grace_s}
            control.request(run, "suspend", reason=reason, **grace)
        except EnvironmentProblem:  # it holds the lock, and is about to listen or to end
            if time.monotonic() > give_up:
                raise
            time.sleep(POLL_S)
        else:
            return


def cancel(runs: Sequence[RunDir], listener: Listener, *, now: bool = False) -> None:
    """Stop runs, all at a time, and wait until no process of them is left.

    Raises EnvironmentProblem, after the others are stopped, for those that cannot be.
    """
    going = []
    for run in runs:
        state = run.state()  # also says whether the run can be read at all
        if run.alive():
            going.append(run)
        else:
            listener.notice(f"{run.name} is not running: {state}")
    for run in going:
        how = "at once; the newest checkpoint stays" if now else "after a checkpoint (Ctrl-C: do not wait)"
        listener.notice(f"stopping {run.name} {how}")
        suspend(run, names.SUSPEND_BY_USER, grace_s=0 if now else None)
    give_up = time.monotonic() + WAIT_S
    while going := [run for run in going if run.alive()]:
        if time.monotonic() > give_up:
            left = ", ".join(run.name for run in going)
            raise EnvironmentProblem(
                f"{left}: not stopped after {WAIT_S:.0f} s",
                hint=f"platform status {going[0].name} shows its processes; platform cancel --now kills them",
            )
        time.sleep(POLL_S)
