"""Follow a run to its end: its events, Ctrl-C as a checkpoint, and how it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from trainserve.client import stop
from trainserve.client.listener import Listener
from trainserve.client.runs import reference, summary
from trainserve.errors import (
    EXIT_DATA,
    EXIT_ENVIRONMENT,
    EXIT_HANGUP,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_RUN_FAILED,
    EXIT_USER,
    DataError,
    EnvironmentProblem,
    RunFailed,
    UserError,
)
from trainserve.kube import names
from trainserve.kube.cluster import Manifest
from trainserve.local import ending
from trainserve.local.rundir import RunDir
from trainserve.observe import events
from trainserve.observe.summary import Summary

POLL_S = 0.2


class Hangup(KeyboardInterrupt):
    """The terminal was closed. Raise it from a handler of SIGHUP to have a followed run stopped with these words."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended that was followed; of a run that goes on in the background, how it is now."""

    summary: Summary
    folder: Path | str | None  # of what it leaves; on a cluster a claim's or a bucket's URL, None where it is not known
    code: int  # exit code of the verb: 0; 1, 2, 3 or 65 failed, by cause; 129 terminal closed; 130 Ctrl-C or cancel
    cause: str | None = None  # of the last failure, where one is known
    supervisor_failed: str | None = None  # what its supervisor said at its end, where that failed

    @property
    def name(self) -> str:
        """What every verb knows the run by."""
        return reference(self.summary)

    @property
    def state(self) -> str:
        return self.summary["state"]

    def check(self) -> Outcome:
        """This, or an error that says how the run ended otherwise than well.

        Raises DataError, UserError, EnvironmentProblem or RunFailed, by cause.
        """
        if self.code == EXIT_OK:
            return self
        kinds = {EXIT_DATA: DataError, EXIT_USER: UserError, EXIT_ENVIRONMENT: EnvironmentProblem}
        message = f"{self.name}: {self.state}: {self.cause or self.supervisor_failed or self.summary['message']}"
        again = "resume" if self.state in (names.SUSPENDED, names.INTERRUPTED) else "logs"
        raise kinds.get(self.code, RunFailed)(message, hint=f"platform {again} {self.name}")


def follow(run: RunDir, listener: Listener, *, offset: int = 0) -> Outcome:
    """Tell the run's events from byte `offset` of its file until it ends.

    KeyboardInterrupt stops the run after a checkpoint and is over with that; a second one does not wait for it.
    """
    try:
        _tell(run, listener, offset)
    except KeyboardInterrupt as interrupt:
        return stopped(run, listener, interrupt)
    if not run.lock_path.exists():  # the first thing to go where somebody is just removing the folder
        raise run.gone()
    return outcome(run)


def _tell(run: RunDir, listener: Listener, offset: int) -> None:
    listener.following(run.name)
    restarts = _status(run).get("restarts", 0)
    while True:
        # Liveness is read before the events, so that nothing written before the end is missed.
        alive = run.alive()
        found, offset = events.read(run.events_path, offset)
        for event in found:
            listener.event(event)
        status = _status(run)
        if status.get("restarts", 0) > restarts:
            restarts = status["restarts"]
            # The cause stays in the status; the condition that told it may be over by now.
            cause = status.get("cause") or summary(run)["message"]
            listener.notice(f"restart {restarts}: {cause}")
        if not alive:
            return
        time.sleep(POLL_S)


def stopped(run: RunDir, listener: Listener, interrupt: KeyboardInterrupt) -> Outcome:
    """Stop a run as Ctrl-C, or a closed terminal, asks for. A second Ctrl-C does not wait for it to be gone."""
    hangup = isinstance(interrupt, Hangup)
    asked = told = False
    for presses in (1, 2, 3):
        try:
            if not told:
                again = "the terminal was closed" if hangup else "Ctrl-C again: do not wait"
                listener.notice(f"stopping after a checkpoint ({again})")
                told = True
            if not asked:  # the second Ctrl-C may come before the first has been passed on
                stop.suspend(run, names.SUSPEND_BY_HANGUP if hangup else names.SUSPEND_BY_INTERRUPT)
                asked = True
            if hangup:  # whoever closed the terminal may not wait for us
                listener.notice(f"{run.name} goes on stopping in the background; then:\n  platform resume {run.name}")
                return outcome(run, code=EXIT_HANGUP)
            if presses > 1:
                break
            stop.wait_gone(run, listener.notice, ending.CANCEL_S)
            return outcome(run)
        except KeyboardInterrupt:
            continue
    listener.notice(f"{run.name} goes on stopping in the background:\n  platform status {run.name}")
    return outcome(run, code=EXIT_INTERRUPTED)


def outcome(run: RunDir, *, code: int | None = None) -> Outcome:
    """How the run has ended, or is now when `code` is given. Raises EnvironmentProblem when its folder is gone."""
    run.check_there()
    result = summary(run)
    ended = run.supervisor().get("ended") if result["state"] == names.INTERRUPTED else None
    if code is None:
        match result["state"]:
            case names.SUCCEEDED:
                code = EXIT_OK
            case names.SUSPENDED:
                code = EXIT_INTERRUPTED
            case names.INTERRUPTED:
                code = ended["code"] if ended else EXIT_ENVIRONMENT
            case _:
                code = failure_code(run.pods())
    return Outcome(result, run.path, code, _status(run).get("cause"), ended["message"] if ended else None)


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
