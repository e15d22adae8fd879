"""Start a command that sees folders at other paths than this machine has them: volumes of a node's pods.

    python -I -S mounts.py JSON command [args...]

JSON: `{"root": "/an/empty/folder", "mounts": [{"source", "target", "readOnly"}], "keep": ["/paths", ...],
"message": "/file"}`. The command gets a mount namespace of its own, in which this machine's root is seen as it is, but
for the targets; what they hide of `keep` is put back. Whoever is not root gets a user namespace for it, with his own
ids. Nothing is left on the machine: what has no place to be mounted at gets one in memory. What fails is told in
`message` too.

Standard library only and run as a file, as shim.py. Linux only. This is no isolation: it is for paths.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys
from pathlib import Path

CANNOT = 126
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18  # sys/mount.h
# What a mount of another namespace has must stay when it is made read-only: statvfs's bit -> mount's.
KEPT_FLAGS = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}

_libc = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> int:
    plan, command = json.loads(argv[0]), argv[1:]
    here = str(Path.cwd())
    try:
        own_namespace()
        root = Path(plan["root"])
        build(root, plan["mounts"], [here, *plan["keep"]])
        os.chroot(root)
        os.chdir(here)
    except OSError as error:
        return _refuse(
            plan["message"], f"volumes cannot be mounted: {error.filename or 'this process'}: {error.strerror}"
        )
    try:
        os.execvp(command[0], command)  # noqa: S606  that is what it is for
    except OSError as error:
        return _refuse(plan["message"], f"{command[0]}: {error.strerror}")


def own_namespace() -> None:
    """Mounts are this process's own from here on. Raises OSError where the machine does not allow it."""
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0 or _libc.unshare(CLONE_NEWNS) != 0:  # root of a container may not, without a user namespace
        _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "user namespaces")
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")
    mount("none", "/", MS_REC | MS_PRIVATE)


def build(root: Path, mounts: list[dict[str, str]], keep: list[str]) -> None:
    """Make `root` what the command is to see. Raises OSError."""
    mount("none", str(root), 0, "tmpfs", "mode=755")
    _entries(Path("/"), root)
    for each in sorted(mounts, key=lambda each: each["target"].count("/")):
        source = Path(each["source"])
        target = _place(root, Path(each["target"]), is_file=not source.is_dir())
        mount(str(source), str(target), MS_BIND | MS_REC)
        if each.get("readOnly"):
            have = os.statvfs(target).f_flag
            flags = sum(flag for bit, flag in KEPT_FLAGS.items() if have & bit)
            mount("none", str(target), MS_REMOUNT | MS_BIND | MS_RDONLY | flags)
    for path in keep:
        if not _same(Path(path), _inside(root, Path(path))):
            mount(path, str(_place(root, Path(path), is_file=not Path(path).is_dir())), MS_BIND | MS_REC)


def _entries(real: Path, copy: Path) -> None:
    """Let the empty folder `copy` have what `real` has."""
    for entry in os.scandir(real):
        path = copy / entry.name
        if entry.is_symlink():
            path.symlink_to(Path(entry.path).readlink())
            continue
        if entry.is_dir():
            path.mkdir()
        elif stat.S_ISREG(entry.stat().st_mode):
            path.touch()
        else:
            continue  # sockets and pipes of somebody else
        mount(entry.path, str(path), MS_BIND | MS_REC)


def _place(root: Path, path: Path, *, is_file: bool) -> Path:
    """Where `path` is below `root`; made in memory where the machine does not have it."""
    place = _inside(root, path)
    if place.exists():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True) if _is_ours(root, place) else _own(root, place)
    except FileExistsError as error:
        raise NotADirectoryError(20, "is below a file", str(path)) from error
    place.touch() if is_file else place.mkdir(parents=True, exist_ok=True)
    return place


def _own(root: Path, place: Path) -> None:
    """Replace the nearest folder above `place` by one in memory that has the same in it."""
    above = place.parent
    while not above.exists():
        above = above.parent
    real = Path("/") / above.relative_to(root)
    mount("none", str(above), 0, "tmpfs", "mode=755")
    _entries(real, above)
    place.parent.mkdir(parents=True, exist_ok=True)


def _is_ours(root: Path, place: Path) -> bool:
    """Whether what would be made for `place` would be in memory, or in a volume, and not on the machine's disk."""
    above = place.parent
    while not above.exists():
        above = above.parent
    real = Path("/") / above.relative_to(root)
    return above == root or not _same(real, above)


def _inside(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def mount(source: str, target: str, flags: int, kind: str = "none", data: str = "") -> None:
    """Let the kernel mount it. Raises OSError with the target as its file."""
    words = [os.fsencode(word) for word in (source, target, kind)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(data)), target)


def _check(code: int, what: str) -> None:
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _refuse(message: str, why: str) -> int:
    sys.stderr.write(f"{why}\n")
    Path(message).write_text(why, encoding="utf-8")
    return CANNOT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
