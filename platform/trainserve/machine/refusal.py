"""What helps where the system refuses something: one sentence for each errno that a user can do something about."""

from __future__ import annotations

import errno

_HELPS = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EFBIG: "free some space there, or raise the limit of file sizes: ulimit -f",
    errno.EROFS: "it is mounted read-only; runs can be kept elsewhere: export TRAINSERVE_HOME",
    errno.EMFILE: "raise the limit of open files: ulimit -n 1024",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.ENOTDIR: "a file is where a folder belongs: choose another place, or move it away",
    errno.EEXIST: "something of this name is there already: choose another place, or move it away",
    errno.EISDIR: "a folder is where a file belongs: choose another place, or move it away",
    errno.ELOOP: "its symbolic links lead round in a circle",
}


def helps(error: OSError) -> str | None:
    """What to do about it; None where nothing general can be said."""
    return _HELPS.get(error.errno or 0)
