"""How a run ended that was followed, in words, and what comes next."""

from __future__ import annotations

import time

from trainserve.cli.output import duration, emit, percent, say
from trainserve.client.follow import Outcome
from trainserve.client.runs import reference
from trainserve.errors import EXIT_HANGUP, EXIT_INTERRUPTED
from trainserve.kube import names
from trainserve.observe.summary import Summary


def closing(outcome: Outcome, fmt: str) -> int:
    """Print how the run ended and the next commands to try; returns the exit code."""
    result, name = outcome.summary, outcome.name
    emit(fmt, result, table=lambda: "", names=[name])
    match outcome.state:
        case names.SUCCEEDED:
            took = duration(time.time() - result["created"]) if result["created"] else "?"
            say(f"{name} succeeded after {took}: top-1 {percent(result['top1'])} on the validation pictures")
            if result.get("namespace"):
                say(f"  output   {outcome.folder or 'where its job says'}")
                say(f"next:\n  platform report {name}\n  platform serve {name}\n  platform logs {name}")
                say(f"  platform status {name}")
            else:
                say(f"  bundle   {result['bundle']}\n  archive  {result['archive']}\n  folder   {outcome.folder}")
                say(f"next:\n  platform report {name}\n  platform evaluate {name}\n  platform serve {name}")
                say(f"  platform package {name} -o {name}.mar\n  platform status {name}")
        case names.SUSPENDED:
            say(f"{name} was stopped at step {result['step'] or 0} of {result['steps'] or '?'}")
            _say_resume(result)
        case names.INTERRUPTED:
            say(f"{name} was interrupted: {result['message']}")
            say(f"  supervisor's log  {outcome.folder}/supervisor.log")
            _say_resume(result)
        case names.FAILED:
            say(f"{name}: {outcome.state}: {result['message']}")
            if outcome.cause and outcome.cause not in result["message"]:
                say(f"cause: {outcome.cause}")
            say(f"next:\n  platform why {name}\n  platform logs {name}\n  platform status {name}")
        case _ if outcome.code not in (EXIT_INTERRUPTED, EXIT_HANGUP):  # else it goes on stopping, as was said
            say(f"{name}: {outcome.state}")
    return outcome.code


def _say_resume(result: Summary) -> None:
    step = result["checkpointStep"]
    if step is None:
        say("there is no checkpoint yet: a resumed run begins anew")
    elif step == result["step"]:
        say("nothing is lost: the checkpoint is of the same step")
    else:
        say(f"the newest checkpoint is of step {step}")
    say(f"resume it:\n  platform resume {reference(result)}")
