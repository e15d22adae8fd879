"""Follow a run to its end: show its events, turn Ctrl-C into a checkpoint, say how it ended and what comes next."""

from __future__ import annotations

import time

from trainserve.cli.output import duration, emit, percent, say
from trainserve.cli.progress import Display
from trainserve.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_RUN_FAILED, EnvironmentProblem
from trainserve.kube import names
from trainserve.local import control
from trainserve.local.rundir import RunDir
from trainserve.observe import events
from trainserve.observe.summary import Summary, summarize

POLL_S = 0.2


def follow(run: RunDir, fmt: str, *, offset: int = 0) -> int:
    """Show the run's events from byte `offset` of its file until it ends; print its result.

    Returns the exit code: 0 succeeded, 1 failed, 130 stopped by Ctrl-C or cancel.
    """
    interrupted = False
    restarts = _restarts(run)
    with Display() as display:
        while True:
            try:
                # Liveness is read before the events, so that nothing written before the end is missed.
                alive = run.alive()
                found, offset = events.read(run.events_path, offset)
                for event in found:
                    display.event(event)
                if _restarts(run) > restarts:
                    restarts = _restarts(run)
                    display.line(f"restart {restarts}: {summary(run)['message']}")
                if not alive:
                    break
                time.sleep(POLL_S)
            except KeyboardInterrupt:
                if interrupted:
                    say(f"{run.name} goes on stopping in the background; see: platform status {run.name}")
                    return EXIT_INTERRUPTED
                interrupted = True
                display.line("stopping after a checkpoint (Ctrl-C again: do not wait)")
                suspend(run, names.SUSPEND_BY_INTERRUPT)
    return closing(run, fmt)


def suspend(run: RunDir, reason: str) -> None:
    """Ask the run's supervisor to checkpoint and stop. Nothing to do when it has just ended by itself."""
    try:
        control.request(run, "suspend", reason=reason)
    except EnvironmentProblem:
        if run.alive():
            raise


def summary(run: RunDir) -> Summary:
    """The run in a few numbers, as of now."""
    return summarize(run.name, run.state(), run.job(), events.read(run.events_path)[0])


def closing(run: RunDir, fmt: str) -> int:
    """Print how the run ended and the next commands to try; returns the exit code."""
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
        case names.SUSPENDED | "Interrupted" as state:
            word = "was stopped" if state == names.SUSPENDED else "was interrupted"
            say(f"{run.name} {word} at step {result['step'] or 0} of {result['steps'] or '?'}; nothing is lost")
            say(f"resume it:\n  platform train --resume {run.name}")
            return EXIT_INTERRUPTED
        case state:
            say(f"{run.name}: {state}: {result['message']}")
            cause = (run.job() or {}).get("status", {}).get("cause")
            if cause and cause not in result["message"]:
                say(f"cause: {cause}")
            say(f"next:\n  platform logs {run.name}\n  platform status {run.name}")
            return EXIT_RUN_FAILED


def _restarts(run: RunDir) -> int:
    restarts: int = (run.job() or {}).get("status", {}).get("restarts", 0)
    return restarts
