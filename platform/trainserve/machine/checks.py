"""What `platform doctor` looks at on the machine itself: cores, memory, disks, locks, ports, limits, clock, terminal.

Each check takes what it looks at as arguments, changes nothing that stays, and never raises.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from trainserve.machine import cgroup, locks
from trainserve.machine.check import Check
from trainserve.machine.files import write_bytes
from trainserve.machine.ports import LOOPBACK
from trainserve.machine.usage import size_words

GIB = 1 << 30
PYTHON = (3, 11)
SHM = Path("/dev/shm")  # noqa: S108  the kernel's own, no temporary file
MEMORY_LOW, SHM_LOW = 4 * GIB, 256 << 20
DISK_LOW, DISK_NONE = 5 * GIB, 256 << 20  # a checkpoint of a ResNet-50 with its optimizer takes some 200 MB
SLOW_FSYNC_S = 0.1
FILES_LOW, FILES_NONE = 1024, 128
NARROW = 80  # columns
SKEW_S = 60.0
OLDEST_YEAR = 2024
SHARED = ("nfs", "cifs", "smb", "fuse", "9p", "lustre", "ceph", "afs", "glusterfs")
TRY_LOCK = """\
import fcntl, sys
with open(sys.argv[1], "rb+") as file:
    try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError: sys.exit(7)
"""


def python() -> Check:
    version = sys.version_info
    found = f"{version.major}.{version.minor}.{version.micro} in {sys.prefix}"
    if version[:2] < PYTHON:
        wanted = ".".join(map(str, PYTHON))
        return Check("Python", "missing", found, "everything", fix=f"install Python {wanted} or newer")
    return Check("Python", "ok", found, "everything")


def cores() -> Check:
    usable, all_of_them = cgroup.cores(), cgroup.cores_of_machine()
    found = f"{usable}" + (f" of {all_of_them}; the cgroup or affinity allows no more" if usable < all_of_them else "")
    if usable == 1:
        return Check(
            "cores", "warning", found, "the nodes of a run share them", fix="give it two or more, or --nodes 1"
        )
    return Check("cores", "ok", found, "the nodes of a run share them")


def memory(total: int | None, limit: int | None) -> Check:
    """`total` bytes of the machine, `limit` of the cgroup; None where they are not known or there is none."""
    use = "each rank takes 0.5 GiB and more, a served model 1 GiB"
    if total is None:
        return Check("memory", "ok", "not known on this system", use)
    usable = total if limit is None else min(total, limit)
    found = size_words(usable) + (f" of {size_words(total)}: the limit of the cgroup" if usable < total else "")
    if usable < MEMORY_LOW:
        return Check("memory", "warning", found, use, fix="fewer --nodes and a smaller --batch-size take less")
    return Check("memory", "ok", found, use)


def shared_memory(folder: Path = SHM) -> Check:
    use = "loader workers hand pictures over in it"
    try:
        size = shutil.disk_usage(folder).total
    except OSError:
        return Check("shared memory", "ok", "none on this system", use)
    if size < SHM_LOW:
        fix = f"docker run --shm-size=1g, or mount -o remount,size=1g {folder}; --workers 0 goes without"
        return Check("shared memory", "warning", f"{size_words(size)} in {folder}", use, fix=fix)
    return Check("shared memory", "ok", f"{size_words(size)} in {folder}", use)


def disk(home: Path) -> Check:
    """Free space where runs are kept."""
    use = "runs: a checkpoint of some 100 MB, three of them, bundle and archive"
    place = existing(home)
    try:
        free = shutil.disk_usage(place).free
        inodes = os.statvfs(place)
    except OSError as error:
        return Check("disk", "missing", f"{place}: {error.strerror}", use, fix=_elsewhere(home))
    found = f"{size_words(free)} free in {home}"
    if inodes.f_files and not inodes.f_favail:
        return Check("disk", "missing", f"no inode is free in {home}", use, fix="remove files there: platform gc")
    if free < DISK_LOW:
        fix = "platform gc shows what can go; or " + _elsewhere(home)
        return Check("disk", "missing" if free < DISK_NONE else "warning", found, use, fix=fix)
    return Check("disk", "ok", found, use)


def home_folder(home: Path, mounts: Path = Path("/proc/mounts")) -> list[Check]:
    """Whether runs can be written where they are kept, with locks that work, and how fast that is on the disk."""
    use = {"home": "runs and servers are kept there", "locks": "one supervisor a run, also when it was killed",
           "fsync": "checkpoints and states that survive a power cut"}  # fmt: skip
    try:
        with _scratch(home) as folder:
            kind = file_system(folder, mounts)
            return [
                Check("home", "ok", f"{home} can be written" + (f" ({kind})" if kind else ""), use["home"]),
                _locks(folder / "lock", kind, use["locks"], home),
                _fsync(folder / "probe", use["fsync"], home),
                _clock(folder / "probe"),
            ]
    except OSError as error:
        found = f"{home} cannot be written: {error.strerror or error}"
        return [Check("home", "missing", found, use["home"], fix=_elsewhere(home))]


def open_files(limit: int | None = None) -> Check:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
    use = "pipes and pictures of all ranks"
    found = "no limit" if soft == resource.RLIM_INFINITY else str(soft)
    if 0 <= soft < FILES_LOW:
        return Check("open files", "missing" if soft < FILES_NONE else "warning", found, use, fix="ulimit -n 4096")
    return Check("open files", "ok", found, use)


def loopback() -> Check:
    use = "ranks and servers meet there"
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            server.settimeout(5)
            with socket.create_connection(server.getsockname(), timeout=5) as client:
                accepted, _ = server.accept()
                with accepted:
                    client.sendall(b"x")
                    accepted.settimeout(5)
                    accepted.recv(1)
    except OSError as error:
        fix = "bring the interface up (ip link set lo up), and let the firewall pass it"
        return Check("loopback", "missing", f"{LOOPBACK}: {error.strerror or error}", use, fix=fix)
    return Check("loopback", "ok", f"a server on {LOOPBACK} answers", use)


def terminal(columns: int, encoding: str | None, *, is_terminal: bool) -> Check:
    use = "tables and the progress bar"
    utf8 = (encoding or "").lower().replace("-", "") == "utf8"
    found = f"{columns} columns, {encoding}" if is_terminal else f"none; {encoding}"
    if not utf8:
        return Check("terminal", "warning", found, use, required=False, fix="export LANG=C.UTF-8")
    if is_terminal and columns < NARROW:
        return Check("terminal", "warning", found, use, required=False, fix=f"widen it to {NARROW} columns, or -o json")
    return Check("terminal", "ok", found, use, required=False)


def program(name: str, use: str, fix: str, path: str | None = None) -> Check:
    """A program on PATH that only some verbs or later steps need."""
    found = shutil.which(name, path=path)
    if found is None:
        return Check(name, "missing", "not on PATH", use, required=False, fix=fix)
    return Check(name, "ok", found, use, required=False)


def completion(environment: Mapping[str, str], user_home: Path) -> Check:
    """Whether the user's shell asks for our completions when it starts."""
    shell = Path(environment.get("SHELL") or "").name
    files = {
        "bash": (".bashrc", ".bash_profile", ".profile"),
        "zsh": (".zshrc",),
        "fish": (".config/fish/config.fish",),
    }
    use = "names of verbs, runs and fields by the Tab key"
    if shell not in files:
        return Check("completion", "ok", f"none for {shell or 'an unknown shell'}", use, required=False)
    if (user_home / ".config/fish/completions/platform.fish").exists() and shell == "fish":
        return Check("completion", "ok", "fish has it", use, required=False)
    for name in files[shell]:
        try:
            if "platform completion" in (user_home / name).read_text(encoding="utf-8", errors="replace"):
                return Check("completion", "ok", f"in ~/{name}", use, required=False)
        except OSError:
            continue  # not this one
    fix = f"platform completion {shell} --help says how"
    return Check("completion", "missing", f"not in ~/{files[shell][0]}", use, required=False, fix=fix)


def existing(path: Path) -> Path:
    """The path, or the nearest above it that is there, be it a folder or a file in the way."""
    return next(each for each in (path, *path.parents) if os.path.lexists(each) or each == each.parent)


def file_system(path: Path, mounts: Path) -> str:
    """The type of the file system that holds `path`, by the longest mount point (proc_mounts(5)); "" if unknown."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        _, raw, name, *_ = line.split(" ")
        point = Path(raw.replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= best:  # of two on one place the later one counts
            best, kind = len(point.parts), name
    return kind


@contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=existing(home)) as name:
        yield Path(name)


def _locks(path: Path, kind: str, use: str, home: Path) -> Check:
    name = f"flock on {kind or 'this file system'}"
    held = None
    try:
        held = locks.take(path)
        # Another process has to see it: within one process some network file systems know no difference.
        words = [sys.executable, "-I", "-S", "-c", TRY_LOCK, str(path)]
        second = subprocess.run(words, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("locks", "missing", f"{name}: {error}", use, fix=_elsewhere(home))
    finally:
        if held is not None:
            os.close(held)
    if held is None or second.returncode != 7:
        return Check("locks", "missing", f"{name} keeps nobody out", use, fix=_elsewhere(home))
    if kind.startswith(SHARED):
        found = f"{name} works here; whether other machines see it depends on the server"
        return Check("locks", "warning", found, use, fix=f"start a run from one machine only, or {_elsewhere(home)}")
    return Check("locks", "ok", f"{name} works", use)


def _fsync(path: Path, use: str, home: Path) -> Check:
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        write_bytes(path, b"x" * 4096)
        times.append(time.perf_counter() - begun)
    typical = statistics.median(times)
    found = f"{typical * 1000:.1f} ms to write a small file for good"
    if typical > SLOW_FSYNC_S:
        return Check("fsync", "warning", found, use, fix=f"{_elsewhere(home)}; a local disk takes some ms")
    return Check("fsync", "ok", found, use)


def _clock(path: Path) -> Check:
    use = "ages, deadlines, the newest of several files"
    os.utime(path)  # the file system's own time, which may be another machine's
    write_bytes(path, b"y")
    skew = time.time() - path.stat().st_mtime
    today = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    if time.localtime().tm_year < OLDEST_YEAR:
        return Check(
            "clock", "warning", f"it is {today}, says this machine", use, fix="set it: timedatectl set-ntp true"
        )
    if abs(skew) > SKEW_S:
        found = f"this machine and the home's file system differ by {abs(skew):.0f} s"
        return Check("clock", "warning", found, use, fix="set both by NTP: timedatectl set-ntp true")
    return Check("clock", "ok", today, use)


def _elsewhere(home: Path) -> str:
    return f"export TRAINSERVE_HOME to a folder on a local disk (now {home})"
