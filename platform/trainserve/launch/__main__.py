"""`python -m trainserve.launch [-m module | script.py] [args...]`: the command of a training pod."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from trainserve import log as logs
from trainserve.errors import EXIT_OK, EnvironmentProblem, PlatformError, UserError
from trainserve.kube import names
from trainserve.launch import agent, layout, store, termination
from trainserve.launch.keptlogs import kept
from trainserve.launch.store import Keeper
from trainserve.launch.termination import Failure
from trainserve.train.grace import of_environment

log = logging.getLogger("trainserve.launch")

USAGE = "python -m trainserve.launch [-m module | script.py] [args...]"


def main(argv: Sequence[str]) -> int:
    """Returns the exit code of the pod. Anything that keeps the ranks from starting is said in its message too."""
    logs.setup()
    try:
        program = parse(argv)
        keeping = store.opened(os.environ)
        grace = of_environment(os.environ)
    except PlatformError as error:
        return failed(error)
    if keeping is None:
        with kept(os.environ):
            return run(program)
    keeper = Keeper(keeping, grace)
    signal.signal(signal.SIGTERM, lambda *_: keeper.hurry())  # but while ranks run, when the agent hears it
    with kept(os.environ):
        code = run(program)
    lost = keeper.close(well=code == EXIT_OK)
    if lost is not None and code == EXIT_OK:
        return failed(EnvironmentProblem(f"the result cannot be stored: {lost.message}", hint=lost.hint))
    if lost is not None:
        log.error("the last of the output cannot be stored: %s", lost)
    return code


def run(program: Sequence[str]) -> int:
    """All ranks of this node, to their end."""
    try:
        if layout.is_elastic(os.environ):
            from trainserve.launch import elastic  # brings torch with it

            return elastic.run(program)
        return agent.run(program)
    except PlatformError as error:
        return failed(error)


def failed(error: PlatformError) -> int:
    """Say it in the log and in the termination message; its exit code."""
    log.error("%s", error)
    node = os.environ.get(names.ENV_PET_NODE_RANK, "0")
    rank = int(node) if node.isdigit() else 0
    termination.write(termination.encode(Failure(rank, error.exit_code, time.time(), None, str(error))))
    return error.exit_code


def parse(argv: Sequence[str]) -> list[str]:
    """What comes after the interpreter. Raises UserError when no program is named."""
    if not argv or argv == ["-m"] or (argv[0].startswith("-") and argv[0] != "-m"):
        said = " ".join(argv) or "nothing"
        raise UserError(f"no program to run: expected `-m module` or `script.py`, got {said}", hint=USAGE)
    return list(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
