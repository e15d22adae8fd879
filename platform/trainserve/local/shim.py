"""Process 1 of a container on a laptop: starts the command, reports its end, leaves no process behind.

    python -I -S shim.py REPORT_FD LIFELINE_FD command [args...]

Standard library only and run as a file, because every container of every pod pays for its start. The kubelet talks to
it through standard input: `t` sends SIGTERM to the command, `k` kills all there is, end of file means that the kubelet
is gone and kills all too. It answers on REPORT_FD with JSON lines: `{"pid": n}` or `{"error": str, "code": n}`, then
`{"code": n, "time": unix}` when the command has ended (128 + n for signal n). It ends itself once nothing is left.

It is the leader of a session and a group in which the command runs. On Linux it is also the reaper of everything that
descends from it, so that a process which left the group is found too; elsewhere the group is all there is.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
CANNOT_RUN = 126  # as a shell says it: found, but it cannot be executed
NOT_FOUND = 127
POLL_S = 0.01
LINUX = sys.platform == "linux"
# A group-wide signal (`kill 0`) is meant for the command; the shim has to outlive it.
NOT_FOR_US = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main(argv: list[str]) -> int:
    report, lifeline, command = int(argv[0]), int(argv[1]), argv[2:]
    os.set_inheritable(report, False)
    if lifeline >= 0:
        os.set_inheritable(lifeline, True)
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wakeup, wakeup_write = os.pipe()
    os.set_blocking(wakeup, False)
    os.set_blocking(wakeup_write, False)
    for number in (*NOT_FOR_US, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which the command would inherit
    signal.set_wakeup_fd(wakeup_write)
    try:
        child = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores them, a command expects them
        )
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        _say(report, {"error": f"{command[0]}: {error.strerror}", "code": code})
        return 0
    _say(report, {"pid": child})
    _serve(report, wakeup, child)
    _kill_all()
    return 0


def _serve(report: int, wakeup: int, child: int) -> None:
    """Until the command has ended, or all is to be killed."""
    while True:
        ready = select.select([0, wakeup], [], [])[0]
        if wakeup in ready:
            os.read(wakeup, 256)
        if _reap(report, child):
            return
        if 0 in ready:
            asked = os.read(0, 64)
            if not asked or b"k" in asked:
                os.kill(child, signal.SIGKILL)
                _kill_all(report, child)
                return
            os.kill(child, signal.SIGTERM)
            os.kill(child, signal.SIGCONT)  # one that is stopped would not see it


def _reap(report: int, child: int) -> bool:
    """Collect ended processes; True when the command was one of them."""
    ended = False
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == child:
                code = os.waitstatus_to_exitcode(found[1])
                _say(report, {"code": code if code >= 0 else 128 - code, "time": time.time()})
                ended = True
    except ChildProcessError:
        pass  # no child is left
    return ended


def _kill_all(report: int = -1, child: int = -1) -> None:
    """Kill every descendant and wait until none is left."""
    while True:
        _reap(report, child)
        left = _descendants()
        if left is None:
            os.killpg(0, signal.SIGKILL)  # ourselves too; what there was to say is said
            return
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # ended meanwhile
        time.sleep(POLL_S)


def _descendants() -> list[int] | None:
    """All processes below this one, zombies too (they are ours to reap); None on a system without /proc."""
    if not LINUX:
        return None
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = Path(entry.path, "stat").read_text()
            except OSError:
                continue  # ended meanwhile
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    below = children.get(os.getpid(), [])
    while below:
        found += below
        below = [pid for parent in below for pid in children.get(parent, [])]
    return found


def _say(report: int, what: dict[str, object]) -> None:
    try:
        os.write(report, json.dumps(what).encode() + b"\n")
    except BrokenPipeError:
        return  # the kubelet is gone; its end of file on standard input says so as well


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
