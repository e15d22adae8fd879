"""Stop a run whatever state its supervisor is in: by asking it, and where nobody answers by ending its process.

Every process of a run ends when its supervisor does. What even that does not end (a process that somebody stopped, or
cut off) is found by the mark in its environment.
"""

from __future__ import annotations

import contextlib
import time

from trainserve.errors import EXIT_ENVIRONMENT, EnvironmentProblem
from trainserve.kube import names
from trainserve.local import control, process
from trainserve.local.rundir import RunDir
from trainserve.machine.files import write_json
from trainserve.machine.processes import Identity, boot_id, start_of, state_of

POLL_S = 0.05
ANSWER_S = 6.0  # a supervisor answers within milliseconds, on a busy machine within a second or two
ONE_TRY_S = 1.5  # then it is looked at again; to be asked twice does it no harm
STOPPED = ("T", "t")  # by SIGSTOP, or by a debugger: it answers nobody
KILL_S = 5.0  # for the kernel to end processes that were killed
SLACK_S = 3.0  # what ends after SIGKILL, and the last snapshot
CANCEL_S = names.CANCEL_GRACE_S + SLACK_S  # until everything is gone, when somebody answers


def ask(run: RunDir, reason: str, *, grace_s: float | None = None) -> bool:
    """Ask the run's supervisor to checkpoint and stop; True when it answered or has just ended by itself.

    `grace_s` is how long its processes may take, 0 is not at all; None is names.CANCEL_GRACE_S. False after ANSWER_S:
    the machine hardly moves; at once where it is stopped.
    """
    grace = {} if grace_s is None else {"graceSeconds": grace_s}
    supervisor = run.supervisor_process()
    give_up = time.monotonic() + ANSWER_S
    while run.alive():
        left = give_up - time.monotonic()
        if left <= 0 or (supervisor and state_of(supervisor.pid) in STOPPED and supervisor.is_running()):
            return False
        try:
            control.request(run, "suspend", timeout_s=min(left, ONE_TRY_S), reason=reason, **grace)
        except EnvironmentProblem:
            time.sleep(POLL_S)  # it holds the lock, and is about to listen or to end
        else:
            return True
    return True


def stop(run: RunDir, reason: str, *, grace_s: float | None = None) -> bool:
    """As `ask`; a supervisor that does not answer is killed. False when it had to be."""
    if ask(run, reason, grace_s=grace_s):
        return True
    kill(run, "it did not answer, and was killed to stop the run")
    return False


def settle(run: RunDir, patience_s: float) -> bool:
    """Wait until a run that was asked to stop is gone; what is not by then is killed. False when it had to be.

    Raises as `kill`.
    """
    give_up = time.monotonic() + patience_s
    while run.alive():
        if time.monotonic() >= give_up:
            kill(run, f"it did not end within {patience_s:.0f} s, and was killed to stop the run")
            return False
        time.sleep(POLL_S)
    return True


def kill(run: RunDir, why: str) -> None:
    """End the run's supervisor and every process of the run by SIGKILL; returns when none is left.

    Raises EnvironmentProblem, with the pids and their states, where some do not go: they are stuck in the kernel, or
    hold the lock without being the supervisor that the run's folder names.
    """
    supervisor = run.supervisor_process()
    if supervisor is None or not supervisor.is_running():
        supervisor = _found(run) or supervisor
    if supervisor is not None and supervisor.kill():
        with contextlib.suppress(OSError):  # the words are lost on a full disk, nothing else
            ended = {"code": EXIT_ENVIRONMENT, "message": why}
            write_json(run.supervisor_path, {**run.supervisor(), "ended": ended})
    give_up = time.monotonic() + KILL_S
    while run.alive() and time.monotonic() < give_up:
        time.sleep(POLL_S)
    sweep(run)
    if run.alive():
        raise EnvironmentProblem(
            f"run {run.name!r} cannot be stopped: somebody holds {run.lock_path}"
            + (f" (its supervisor was process {supervisor.pid})" if supervisor else ""),
            hint=f"fuser {run.lock_path} names the process",
        )


def _found(run: RunDir) -> Identity | None:
    """The supervisor of a run whose record of it was damaged: by its command, which names the run's folder."""
    for pid in process.supervisors(run.path):
        started = start_of(pid)
        if started is not None:
            return Identity(pid, started, boot_id())
    return None


def sweep(run: RunDir) -> int:
    """Kill what is left of a run that has no supervisor; returns how many processes that were. Raises as `kill`."""
    try:
        return process.kill_marked(run.pods_path, KILL_S)
    except TimeoutError:
        left = ", ".join(f"{pid} (state {state_of(pid)})" for pid in process.marked(run.pods_path))
        raise EnvironmentProblem(
            f"run {run.name!r}: processes do not end after SIGKILL: {left}",
            hint="state D waits for a disk or device: it ends when that answers, or with a restart of the machine",
        ) from None
