"""Which process is which: a pid comes again, so a process is known by its pid, when it started, and in which boot.

Sources: proc_pid_stat(5), field 22; random(4) for the boot id; pidfd_open(2).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc")
LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class Identity:
    """One process, told apart from any other that ever gets its pid."""

    pid: int
    started: str  # clock ticks since boot on Linux, a date elsewhere; only ever compared
    boot: str  # of the machine

    def is_running(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        return self.boot == boot_id() and self.started != "" and start_of(self.pid) == self.started

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Send a signal to this very process; False when it is gone. Raises PermissionError for another user's."""
        if self.pid <= 1 or not self.is_running():
            return False
        try:
            if not hasattr(os, "pidfd_open"):
                os.kill(self.pid, number)
                return True
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The descriptor holds on to one process: if that is still the one that is meant, no other can be hit.
            if not self.is_running():
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Any) -> Identity | None:
        """What `to_dict` gave, or None for anything else."""
        if not isinstance(found, dict):
            return None
        pid, started, boot = found.get("pid"), found.get("started"), found.get("boot")
        if isinstance(pid, int) and isinstance(started, str) and isinstance(boot, str):
            return cls(pid, started, boot)
        return None


def myself() -> Identity:
    """This process."""
    return Identity(os.getpid(), start_of(os.getpid()) or "", boot_id())


def boot_id(proc: Path = PROC) -> str:
    """What changes with every start of the machine; "" where the system does not say."""
    if not LINUX:
        return _said("sysctl", "-n", "kern.bootsessionuuid")
    try:
        return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def start_of(pid: int, proc: Path = PROC) -> str | None:
    """When a process was started; None when there is none of this pid, or only its zombie."""
    if not LINUX:
        return _said("ps", "-o", "lstart=", "-p", str(pid)) or None
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold anything; the first of these is field 3
    return None if fields[0] in {"Z", "X"} else fields[19]


def state_of(pid: int, proc: Path = PROC) -> str:
    """One letter: R runs, S sleeps, D waits in the kernel, T is stopped, Z is a zombie; "" where there is none."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def _said(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=5).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
