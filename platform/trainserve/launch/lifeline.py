"""Die with the supervisor: an inherited pipe whose end of file means that nobody is left to stop us.

The supervisor holds the only write end and never writes. Every process that watches the read end learns of the
supervisor's death from the kernel, whatever killed it, without polling and without trusting a parent's pid.
"""

from __future__ import annotations

import logging
import os
import signal
import stat
import threading

from trainserve.kube.names import ENV_LIFELINE_FD

log = logging.getLogger(__name__)


def inherited_fd() -> int | None:
    """The lifeline's file descriptor, or None where there is none (a cluster, a shell, a child that did not get it)."""
    text = os.environ.get(ENV_LIFELINE_FD)
    if not text:
        return None
    try:
        fd = int(text)
        inherited = stat.S_ISFIFO(os.fstat(fd).st_mode)
    except (ValueError, OSError):
        inherited = False
    if not inherited:
        log.warning("%s=%s is no pipe of this process: it will outlive its supervisor", ENV_LIFELINE_FD, text)
        return None
    return fd


def watch() -> bool:
    """Kill this process's group with SIGKILL once the supervisor is gone. False: there is no supervisor to watch.

    Returns at once; the watching is done by a daemon thread that sleeps in read(2). Call it early in every process
    that must not survive: the agent and each rank.
    """
    fd = inherited_fd()
    if fd is None:
        return False
    threading.Thread(target=_wait_for_end, args=(fd,), name="lifeline", daemon=True).start()
    return True


def _wait_for_end(fd: int) -> None:
    while os.read(fd, 1):
        continue
    os.killpg(os.getpgid(0), signal.SIGKILL)
