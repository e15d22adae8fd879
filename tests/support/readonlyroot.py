"""Become a command in a tree that it cannot write to: `readonlyroot.py ROOT UID COMMAND...`, in a mount namespace.

Its environment is ours. Only /tmp can be written; the user is a number that no passwd file knows, without capabilities.
"""

from __future__ import annotations

import os
import subprocess
import sys

MOUNT = "/bin/mount"


def main(root: str, user: int, command: list[str]) -> None:
    """Never returns."""
    for words in (
        ["--bind", root, root],
        ["-o", "remount,bind,ro", root],
        ["--bind", "/proc", f"{root}/proc"],
        ["--rbind", "/dev", f"{root}/dev"],
        ["-t", "tmpfs", "-o", "mode=1777", "tmpfs", f"{root}/tmp"],
    ):
        subprocess.run([MOUNT, *words], check=True, env={})
    os.chroot(root)
    os.chdir("/tmp")
    os.setgroups([])
    os.setgid(0)
    os.setuid(user)
    os.umask(0o022)
    os.execvpe(command[0], command, os.environ)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
