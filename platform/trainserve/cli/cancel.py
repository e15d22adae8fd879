"""`platform cancel`: checkpoint, stop, keep everything."""

from __future__ import annotations

import time

import click

from trainserve.cli.follow import summary, suspend
from trainserve.cli.output import emit, output_option, say
from trainserve.errors import EnvironmentProblem
from trainserve.kube import names
from trainserve.local import rundir

WAIT_S = names.STOP_GRACE_S + 30.0  # until the pods are killed, and what then has to end


@click.command("cancel", short_help="Stop a run after a checkpoint; it can be resumed.")
@click.argument("run")
@output_option("table", "json", "yaml", "name")
def cancel_command(run: str, fmt: str) -> int:
    """Stop a run after a checkpoint. Everything is kept; `platform train --resume RUN` goes on from there."""
    found = rundir.open_run(run)
    if not found.alive():
        say(f"{found.name} is not running: {found.state()}")
    else:
        say(f"stopping {found.name} after a checkpoint (Ctrl-C: do not wait)")
        suspend(found, names.SUSPEND_BY_USER)
        deadline = time.monotonic() + WAIT_S
        while found.alive():
            if time.monotonic() > deadline:
                raise EnvironmentProblem(
                    f"{found.name} has not stopped after {WAIT_S:.0f} s",
                    hint=f"platform status {found.name} shows which process is left",
                )
            time.sleep(0.1)
    result = summary(found)
    emit(fmt, result, table=lambda: "", names=[found.name])
    if result["state"] not in (names.SUCCEEDED, names.FAILED):
        say(
            f"{found.name} is stopped at step {result['step'] or 0}; resume it:\n  platform train --resume {found.name}"
        )
    return 0
