"""Locks that the kernel drops when their process ends, however it ends (flock): no lock can be stale.

A lock belongs to a file that is never deleted: two processes could otherwise lock two files of one name.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

PATIENCE_S = 1.0  # `is_held` holds the lock for an instant to see whether it is free


def take(path: Path, *, patience_s: float = PATIENCE_S) -> int | None:
    """Take the lock of file `path`, made if missing; None while another holds it.

    Returns the file descriptor that holds it until it, and every copy that a child inherited, is closed.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    give_up = time.monotonic() + patience_s
    while not try_lock(descriptor):
        if time.monotonic() >= give_up:
            os.close(descriptor)
            return None
        time.sleep(0.02)
    return descriptor


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file or folder, if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of file `path`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
