"""Follow a run to its end: show its events, turn Ctrl-C into a checkpoint, say how it ended and what comes next."""

from __future__ import annotations

import time

from trainserve.cli.output import duration, emit, percent, say
from trainserve.cli.progress import Display
from trainserve.errors import (
    EXIT_DATA,
    EXIT_ENVIRONMENT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_RUN_FAILED,
    EXIT_USER,
    EnvironmentProblem,
)
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.local import control
from trainserve.local.rundir import RunDir
from trainserve.observe import events
from trainserve.observe.summary import Summary, summarize

POLL_S = 0.2
ANSWER_S = 10.0  # a supervisor listens within a second of taking its lock


def follow(run: RunDir, fmt: str, *, offset: int = 0) -> int:
    """Show the run's events from byte `offset` of its file until it ends; print its result.

    Returns the exit code: 0 succeeded; 1, 2, 3 or 65 failed, by cause; 130 stopped by Ctrl-C or cancel.
    """
    stopping = False
    while True:
        try:
            if not stopping:
                _show(run, offset)
            else:
                _wait(run)
            return closing(run, fmt)
        except KeyboardInterrupt:
            if stopping:
                say(f"{run.name} goes on stopping in the background:\n  platform status {run.name}")
                return EXIT_INTERRUPTED
            stopping = True
            offset = run.events_path.stat().st_size if run.events_path.exists() else 0
            say("stopping after a checkpoint (Ctrl-C again: do not wait)")
            suspend(run, names.SUSPEND_BY_INTERRUPT)


def _show(run: RunDir, offset: int) -> None:
    restarts = _status(run).get("restarts", 0)
    with Display() as display:
        while True:
            # Liveness is read before the events, so that nothing written before the end is missed.
            alive = run.alive()
            found, offset = events.read(run.events_path, offset)
            for event in found:
                display.event(event)
            status = _status(run)
            if status.get("restarts", 0) > restarts:
                restarts = status["restarts"]
                # The cause stays in the status; the condition that told it may be over by now.
                cause = status.get("cause") or summary(run)["message"]
                display.line(f"restart {restarts}: {cause}")
            if not alive:
                return
            time.sleep(POLL_S)


def _wait(run: RunDir) -> None:
    while run.alive():
        time.sleep(POLL_S)


def suspend(run: RunDir, reason: str) -> None:
    """Ask the run's supervisor to checkpoint and stop. Nothing to do when it has just ended by itself."""
    give_up = time.monotonic() + ANSWER_S
    while run.alive():
        try:
            control.request(run, "suspend", reason=reason)
        except EnvironmentProblem:  # it holds the lock, and is about to listen or to end
            if time.monotonic() > give_up:
                raise
            time.sleep(POLL_S)
        else:
            return


def summary(run: RunDir) -> Summary:
    """The run in a few numbers, as of now."""
    return summarize(run.name, run.state(), run.job() or run.read_job(), events.ends(run.events_path))


def closing(run: RunDir, fmt: str) -> int:
    """Print how the run ended and the next commands to try; returns the exit code."""
    run.check_there()
    result = summary(run)
    emit(fmt, result, table=lambda: "", names=[run.name])
    took = duration(time.time() - result["created"]) if result["created"] else "?"
    match result["state"]:
        case names.SUCCEEDED:
            say(f"{run.name} succeeded after {took}: top-1 {percent(result['top1'])} on the validation pictures")
            say(f"  bundle   {result['bundle']}\n  archive  {result['archive']}\n  folder   {run.path}")
            say(f"next:\n  platform serve {run.name}\n  platform package {run.name} -o {run.name}.mar")
            say(f"  platform status {run.name}")
            return EXIT_OK
        case names.SUSPENDED:
            say(f"{run.name} was stopped at step {result['step'] or 0} of {result['steps'] or '?'}")
            _say_resume(run, result)
            return EXIT_INTERRUPTED
        case names.INTERRUPTED:
            ended = run.supervisor().get("ended")
            if ended:
                say(f"{run.name} was interrupted: its supervisor failed: {ended['message']}")
            else:
                say(f"{run.name} was interrupted: its supervisor was killed, or the machine restarted")
            say(f"  supervisor's log  {run.supervisor_log}")
            _say_resume(run, result)
            return int(ended["code"]) if ended else EXIT_ENVIRONMENT
        case state:
            say(f"{run.name}: {state}: {result['message']}")
            cause = _status(run).get("cause")
            if cause and cause not in result["message"]:
                say(f"cause: {cause}")
            say(f"next:\n  platform logs {run.name}\n  platform status {run.name}")
            return failure_code(run.pods())


def _say_resume(run: RunDir, result: Summary) -> None:
    step = result["checkpointStep"]
    if step is None:
        say("there is no checkpoint yet: a resumed run begins anew")
    elif step == result["step"]:
        say("nothing is lost: the checkpoint is of the same step")
    else:
        say(f"the newest checkpoint is of step {step}")
    say(f"resume it:\n  platform train --resume {run.name}")


def failure_code(pods: list[Manifest]) -> int:
    """The exit code of a failed run: what its ranks said of the user's input or the machine, else 1."""
    codes = {
        status["state"]["terminated"]["exitCode"]
        for pod in pods
        for status in pod.get("status", {}).get("containerStatuses") or []
        if "terminated" in status.get("state", {})
    }
    return next((code for code in (EXIT_DATA, EXIT_USER, EXIT_ENVIRONMENT) if code in codes), EXIT_RUN_FAILED)


def _status(run: RunDir) -> Manifest:
    """The job's status in the last snapshot; empty before there is one."""
    return (run.job() or {}).get("status") or {}
