"""A disk of a few MiB in a mount namespace of its own (user_namespaces(7)): to fill it, to make it read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


class TinyDisk:
    """A tmpfs at `path` that only commands with `prefix` see under that name; `inside` is the same for this process."""

    def __init__(self, path: Path, pid: int) -> None:
        self.path = path
        self.prefix = ["nsenter", "--target", str(pid), "--user", "--mount", "--preserve-credentials"]
        self._root = Path(f"/proc/{pid}/root")

    @property
    def inside(self) -> Path:
        return self._root / self.path.relative_to("/")

    def remount(self, options: str) -> None:
        """Change it, such as `size=4m` or `ro`."""
        words = [*self.prefix, "mount", "-o", f"remount,{options}", self.path]
        subprocess.run(words, check=True, capture_output=True, text=True)


@contextmanager
def tiny_disk(path: Path, size: str) -> Iterator[TinyDisk]:
    """A disk of `size`, as `8m`, mounted at the folder `path`. Skips the test, with the reason, where it cannot be."""
    path.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o size={size} tiny "$0" && echo mounted && exec cat'
    with subprocess.Popen(
        [*NAMESPACE, "sh", "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    ) as holder:
        assert holder.stdout is not None
        said = holder.stdout.readline()
        if said != "mounted\n":
            holder.kill()
            pytest.skip(f"SKIPPED: this machine lets nobody mount a small disk in a namespace: {said.strip()}")
        try:
            yield TinyDisk(path, holder.pid)
        finally:
            holder.kill()
