"""Start a run's supervisor in the background, and wait until it is there."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from trainserve.errors import EnvironmentProblem, UserError
from trainserve.kube import names
from trainserve.local import control
from trainserve.local.process import SUPERVISOR
from trainserve.local.rundir import RunDir

READY_S = 60.0  # a laptop waking up with a cold disk; usually well below one second
POLL_S = 0.03
LOG_TAIL_BYTES = 2000

_lifelines: list[int] = []  # write ends that this process holds for as long as it lives


def start(run: RunDir, *, resume: bool = False, detach: bool = False) -> int:
    """Start the supervisor of `run` in a session of its own; returns its pid once it answers.

    With `resume` an unfinished or failed run goes on. Unless `detach`, the run is suspended, with a checkpoint, when
    this process ends. Raises UserError when the run is going on or has succeeded, EnvironmentProblem with the end of
    supervisor.log when the supervisor does not come up.
    """
    lock = run.lock()
    try:
        if resume:
            run.set_damaged_aside()
        if resume and run.state() == names.SUCCEEDED:
            raise UserError(f"run {run.name!r} has succeeded: there is nothing to resume")
        process = _spawn(run, lock, resume=resume, detach=detach)
    finally:
        os.close(lock)  # the supervisor has it too, from its first moment
    give_up = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < give_up:
        if run.supervisor().get("pid") == process.pid:
            try:
                control.request(run, "get")
            except EnvironmentProblem:
                pass  # it wrote its file and is about to listen, or has ended already: look again
            else:
                process.returncode = 0  # not ours to wait for: it may live on after us
                return process.pid
        time.sleep(POLL_S)
    if process.poll() == 0:
        return process.pid  # a run so short that it is over already
    raise EnvironmentProblem(
        f"the supervisor of run {run.name!r} did not start (exit code {process.poll()}): {_reason(run)}",
        hint=f"the whole log is {run.supervisor_log}",
    )


def _spawn(run: RunDir, lock: int, *, resume: bool, detach: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", SUPERVISOR, str(run.path), "--lock-fd", str(lock)]
    fds = [lock]
    if resume:
        command.append("--resume")
    owner = None
    if not detach:
        owner, lifeline = os.pipe()
        _lifelines.append(lifeline)
        command += ["--owner-fd", str(owner)]
        fds.append(owner)
    try:
        with run.supervisor_log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=run.path,
                pass_fds=fds,
                start_new_session=True,
            )
    finally:
        if owner is not None:
            os.close(owner)


def _reason(run: RunDir) -> str:
    """Why the supervisor ended, as it wrote it down, else the last line of its log."""
    ended = run.supervisor().get("ended")
    if ended:
        return str(ended["message"])
    try:
        log = run.supervisor_log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")
    except FileNotFoundError:
        return "it wrote no log"
    return (log.strip().splitlines() or ["its log is empty"])[-1]
