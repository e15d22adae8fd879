"""Stop runs, with a checkpoint or at once, and wait until they are as asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from trainserve.client.listener import Listener
from trainserve.client.runs import DAMAGED, readable
from trainserve.kube import names
from trainserve.local import ending
from trainserve.local.rundir import RunDir

NOW_S = 10.0  # for a supervisor on a busy machine to end after it has killed everything, and to write that down


def suspend(run: RunDir, reason: str, *, grace_s: float | None = None) -> bool:
    """Ask the run's supervisor to checkpoint and stop. Nothing to do when it has just ended by itself.

    `grace_s` is how long its processes may take, 0 is not at all; None is names.CANCEL_GRACE_S. A supervisor that does
    not answer is killed, and with it every process of the run: False when it had to be.
    """
    return ending.stop(run, reason, grace_s=grace_s)


def cancel(runs: Sequence[RunDir], listener: Listener, *, now: bool = False) -> None:
    """Stop runs side by side, and wait until no process of them is left: half a minute at most.

    Raises EnvironmentProblem, after the others are stopped, for those that cannot be. KeyboardInterrupt ends only the
    waiting; what goes on is told.
    """
    going = [run for run in runs if run.alive()]
    asked: set[RunDir] = set()
    # What the threads say is told in this one; None says that one of them is done.
    said: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()

    def end(run: RunDir) -> None:
        try:
            if run in going and not suspend(run, names.SUSPEND_BY_USER, grace_s=0 if now else None):
                said.put(f"the supervisor of {run.name} did not answer: it was killed; the newest checkpoint stays")
            asked.add(run)
            wait_gone(run, said.put, NOW_S if now else ending.CANCEL_S)
        except Exception as error:
            said.put(error)
        finally:
            said.put(None)

    for run in runs:
        if run in going:
            how = "at once; the newest checkpoint stays" if now else "after a checkpoint (Ctrl-C: do not wait)"
            listener.notice(f"stopping {run.name} {how}")
        else:
            state = readable(run)["state"]
            if state != DAMAGED:  # which whoever asked is told with the result
                listener.notice(f"{run.name} is not running: {state}")
    problems: list[Exception] = []
    try:
        for run in runs:  # daemons: they may end in the middle, as this process does, once nobody waits for them
            threading.Thread(target=end, args=(run,), daemon=True).start()
        left = len(runs)
        while left:
            word = said.get()
            if word is None:
                left -= 1
            elif isinstance(word, str):
                listener.notice(word)
            else:
                problems.append(word)
    except KeyboardInterrupt:
        for run in going:
            if run.alive():
                listener.notice(_goes_on(run, asked=run in asked))
        raise
    if problems:
        raise problems[0]


def wait_gone(run: RunDir, notice: Callable[[str], object], patience_s: float) -> None:
    """Until a run that was asked to stop is gone; what is not after `patience_s` is killed, its supervisor too.

    Raises EnvironmentProblem where something of it cannot be killed.
    """
    if not ending.settle(run, patience_s):
        notice(f"{run.name} was still there after {patience_s:.0f} s: its supervisor was killed")
    # Nothing of a run without supervisor should be left; what is, somebody has cut off or stopped.
    found = ending.sweep(run)
    if found:
        notice(f"{run.name}: killed {found} processes that were left of it")


def _goes_on(run: RunDir, *, asked: bool) -> str:
    if asked:
        return (
            f"{run.name} goes on stopping in the background:\n"
            f"  platform status {run.name}\n  platform cancel --now {run.name}"
        )
    return f"{run.name} was not reached yet, and goes on:\n  platform cancel {run.name}"
