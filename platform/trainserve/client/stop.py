"""Stop runs, with a checkpoint or at once, and wait until they are as asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence

from trainserve.client.listener import Listener
from trainserve.errors import PlatformError
from trainserve.kube import names
from trainserve.local import ending
from trainserve.local.rundir import RunDir

POLL_S = 0.1
NOW_S = 10.0  # for a supervisor on a busy machine to end after it has killed everything, and to write that down


def suspend(run: RunDir, reason: str, *, grace_s: float | None = None) -> bool:
    """Ask the run's supervisor to checkpoint and stop. Nothing to do when it has just ended by itself.

    `grace_s` is how long its processes may take, 0 is not at all; None is names.CANCEL_GRACE_S. A supervisor that does
    not answer is killed, and with it every process of the run: False when it had to be.
    """
    return ending.stop(run, reason, grace_s=grace_s)


def cancel(runs: Sequence[RunDir], listener: Listener, *, now: bool = False) -> None:
    """Stop runs, all at a time, and wait until no process of them is left: half a minute at most.

    Raises EnvironmentProblem, after the others are stopped, for those that cannot be.
    """
    going = []
    for run in runs:
        if run.alive():
            going.append(run)
        else:
            _sweep(run, listener)
            listener.notice(f"{run.name} is not running: {run.state()}")
    for run in going:
        how = "at once; the newest checkpoint stays" if now else "after a checkpoint (Ctrl-C: do not wait)"
        listener.notice(f"stopping {run.name} {how}")
        if not suspend(run, names.SUSPEND_BY_USER, grace_s=0 if now else None):
            listener.notice(f"the supervisor of {run.name} did not answer: it was killed; the newest checkpoint stays")
    wait_gone(going, listener, NOW_S if now else ending.CANCEL_S)


def wait_gone(going: Sequence[RunDir], listener: Listener, patience_s: float) -> None:
    """Until runs that were asked to stop are gone; what is not after `patience_s` is killed, its supervisor too.

    Raises EnvironmentProblem, after the others are gone, for those that cannot be killed.
    """
    waiting = [run for run in going if run.alive()]
    give_up = time.monotonic() + patience_s
    while waiting and time.monotonic() < give_up:
        time.sleep(POLL_S)
        waiting = [run for run in waiting if run.alive()]
    problems: list[PlatformError] = []
    for run in waiting:
        listener.notice(f"{run.name} is still there after {patience_s:.0f} s: its supervisor is killed")
        try:
            ending.kill(run, f"it did not end within {patience_s:.0f} s, and was killed to stop the run")
        except PlatformError as problem:
            problems.append(problem)
    for run in going:
        if run not in waiting:
            _sweep(run, listener)
    if problems:
        raise problems[0]


def _sweep(run: RunDir, listener: Listener) -> None:
    """Nothing of a run without supervisor should be left; what is, somebody has cut off or stopped."""
    found = ending.sweep(run)
    if found:
        listener.notice(f"{run.name}: killed {found} processes that were left of it")
