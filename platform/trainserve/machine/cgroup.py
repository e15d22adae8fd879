"""What the cgroup of this process says: processes killed for memory, cores and memory it may use. Both versions.

Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.events, cpu.max) and
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html (memory.oom_control), .../scheduler/sched-bwc.html.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
NO_LIMIT = 1 << 60  # version 1 has no word for none, only a very large number


def oom_kills(root: Path = ROOT) -> int | None:
    """Processes of this cgroup that the kernel has killed for memory so far; None where no cgroup counts them."""
    for folder, name in (("memory", "memory.oom_control"), ("", "memory.events")):
        for path in _candidates(root, folder, name):
            for line in _read(path).splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill" and value.strip().isdigit():
                    return int(value)
    return None


def cores(root: Path = ROOT) -> int:
    """Cores this process may use, at least 1: its affinity, and the CPU limit of its cgroup rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _cpu_limit(root)
    return max(1, affinity if limit is None else min(affinity, math.ceil(limit)))


def cores_of_machine() -> int:
    """Cores of the machine, whether or not this process may use them."""
    return os.cpu_count() or 1


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that this cgroup, or one above it that is seen here, allows; None where there is no limit."""
    found = []
    for folder, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        for path in _candidates(root, folder, name):
            text = _read(path).strip()
            if text.isdigit() and int(text) < NO_LIMIT:
                found.append(int(text))
    return min(found, default=None)


def total_memory(root: Path = ROOT) -> int | None:
    """Bytes of memory of the machine; None where the system does not say."""
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024  # /proc's kB are KiB
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _cpu_limit(root: Path) -> float | None:
    for path in _candidates(root, "", "cpu.max"):
        quota, _, period = _read(path).strip().partition(" ")
        if quota.isdigit() and period.isdigit():
            return int(quota) / int(period)
    for path in _candidates(root, "cpu", "cpu.cfs_quota_us"):
        quota, period = _read(path).strip(), _read(path.with_name("cpu.cfs_period_us")).strip()
        if quota.isdigit() and period.isdigit():  # -1: no limit
            return int(quota) / int(period)
    return None


def _candidates(root: Path, controller: str, name: str) -> Iterator[Path]:
    """Files to try, nearest first. `controller` is "" for version 2.

    In a container without a cgroup namespace /proc names the path on the host, which is mounted as the root here.
    """
    mount = root / "sys/fs/cgroup" / controller
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if (controller in controllers.split(",")) if controller else not controllers:
            yield mount / path.lstrip("/") / name
    yield mount / name


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # not this version of cgroups, or not this system
        return ""
