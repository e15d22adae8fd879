"""`platform doctor`: what this machine has of what training and serving need."""

from __future__ import annotations

from typing import Any

import click

from trainserve.cli.output import columns, emit, output_option, say
from trainserve.client.client import Client
from trainserve.errors import EXIT_ENVIRONMENT
from trainserve.machine.check import Check

WIDEST = 48  # characters of what was found; -o json has all


@click.command("doctor", short_help="Check what this machine has of what is needed.")
@output_option()
def doctor_command(fmt: str) -> int:
    """Check what this machine has of what training and serving need, what each thing is for, and how to get it.

    Exit status: 0 where nothing required is missing, else 3. `-o name` prints what is not ok.
    """
    found = Client().doctor()
    wrong = [check for check in found if check.verdict != "ok"]
    emit(fmt, [_document(check) for check in found], table=lambda: _table(found), names=[each.name for each in wrong])
    stops = [check.name for check in found if check.stops]
    if stops:
        say(f"required and not here: {', '.join(stops)}")
        return EXIT_ENVIRONMENT
    say("nothing required is missing" + (f"; to look at: {', '.join(each.name for each in wrong)}" if wrong else ""))
    return 0


def _table(found: list[Check]) -> str:
    rows = [
        {"status": each.verdict, "what": each.name, "found": _short(each.found), "needed for": _use(each)}
        for each in found
    ]
    todo = [f"{each.name}: {each.found}\n  {each.fix}" for each in found if each.verdict != "ok" and each.fix]
    return "\n\n".join([columns(rows), *todo])


def _use(check: Check) -> str:
    return check.needed_for + ("" if check.required else " (optional)")


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def _document(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "status": check.verdict,
        "found": check.found,
        "neededFor": check.needed_for,
        "required": check.required,
        "fix": check.fix,
    }
