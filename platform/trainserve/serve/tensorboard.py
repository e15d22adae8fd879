"""TensorBoard over the curves of runs, on this machine's loopback address, and nothing left of it afterwards.

TensorBoard calls a run by its folder's name, so it is given a folder of links that have the runs' names. A guard
(guard.py) ends it when this process ends, in whatever way.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trainserve.errors import EnvironmentProblem, RunFailed, not_installed
from trainserve.machine.ports import LOOPBACK, bind_problem
from trainserve.machine.temporary import own_folder
from trainserve.serve import guard

START_S = 120.0  # it imports much; some 3 s on an idle laptop
POLL_S = 0.1
URL = re.compile(rf"at (http://{re.escape(LOOPBACK)}:\d+)/")


@dataclass(frozen=True)
class Board:
    """A TensorBoard that answers. Ends with the `with` block that made it."""

    url: str
    runs: tuple[str, ...]
    process: subprocess.Popen[bytes]  # the guard, which ends when TensorBoard has
    said: IO[bytes]

    def wait(self) -> None:
        """Block until TensorBoard ends by itself, which it should not: raises RunFailed then."""
        code = self.process.wait()
        raise RunFailed(f"TensorBoard ended with code {code}: {_last_words(self.said)}")


@contextmanager
def running(folders: Mapping[str, Path], port: int = 0) -> Iterator[Board]:
    """TensorBoard over these folders of event files, by the names of the runs; `port` 0 is a free one.

    Raises EnvironmentProblem where TensorBoard is not installed, does not start, or the port is in use.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise not_installed("tensorboard", "train")
    problem = bind_problem(port) if port else None
    if problem is not None:
        raise EnvironmentProblem(
            f"--port {port}: port {port} on {LOOPBACK} {problem}", hint="choose another, or --port 0 for a free one"
        )
    with own_folder("trainserve-tensorboard-") as folder:
        (folder / "runs").mkdir()
        for name, target in folders.items():
            (folder / "runs" / name).symlink_to(target.absolute(), target_is_directory=True)
        command = [sys.executable, "-P", "-m", "tensorboard.main", "--logdir", "runs", "--host", LOOPBACK]
        # Its faster reader is a further process, and an experiment.
        command += ["--port", str(port), "--load_fast", "false", "--window_title", ", ".join(folders)]
        read_end, write_end = os.pipe()
        with tempfile.TemporaryFile() as said:  # without a name, so that nothing is left of it
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", guard.__name__, str(read_end), str(folder), "--", *command],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    pass_fds=(read_end,),
                    start_new_session=True,  # Ctrl-C is for this process, which then stops the board in order
                )
            except BaseException:
                os.close(write_end)
                raise
            finally:
                os.close(read_end)
            try:
                yield Board(_url(said, process), tuple(folders), process, said)
            finally:
                os.close(write_end)
                try:
                    process.wait(timeout=guard.GRACE_S + 10)
                finally:
                    if process.poll() is None:  # a second Ctrl-C: the guard's own death ends TensorBoard
                        process.kill()
                        process.wait()


def _url(said: IO[bytes], process: subprocess.Popen[bytes]) -> str:
    """Where it listens, once it does."""
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up:
        ended = process.poll() is not None
        if ended:
            raise EnvironmentProblem(f"TensorBoard could not be started: {_last_words(said)}")
        found = URL.search(_text(said))
        if found:
            return found[1]
        time.sleep(POLL_S)
    raise EnvironmentProblem(f"TensorBoard did not answer within {START_S:.0f} s: {_last_words(said)}")


def _text(said: IO[bytes]) -> str:
    size = os.fstat(said.fileno()).st_size
    return os.pread(said.fileno(), size, 0).decode(errors="replace")  # the writer's own position stays


def _last_words(said: IO[bytes]) -> str:
    lines = [line.strip() for line in _text(said).splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
