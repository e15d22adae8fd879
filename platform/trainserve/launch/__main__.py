"""`python -m trainserve.launch [-m module | script.py] [args...]`: the command of a training pod."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence

from trainserve import log
from trainserve.errors import PlatformError, UserError
from trainserve.kube import names
from trainserve.launch import agent, layout, termination
from trainserve.launch.termination import Failure

USAGE = "python -m trainserve.launch [-m module | script.py] [args...]"


def main(argv: Sequence[str]) -> int:
    """Returns the exit code of the pod. Anything that keeps the ranks from starting is said in its message too."""
    log.setup()
    try:
        program = parse(argv)
        if layout.is_elastic(os.environ):
            from trainserve.launch import elastic  # brings torch with it

            return elastic.run(program)
        return agent.run(program)
    except PlatformError as error:
        logging.getLogger("trainserve.launch").error("%s", error)
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
