"""The output of a run in a bucket: its newest checkpoint is brought back at the start, and what comes is sent there.

The output folder of the pod goes with the pod; `TRAINSERVE_STORE` is where it stays, in the same layout. Only the agent
of the node sends, in a thread: ranks never wait for a bucket, and when one of them dies, what it has left is sent all
the same.

What is sent when, so that nothing in the bucket speaks of what is not there: of a checkpoint first the state, then
`meta.json` with its size and digest; of the bundle `model.json` last; `events.jsonl` after everything else. A
checkpoint that is not as its meta.json says is passed over, on a disk and in a bucket alike.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainserve.errors import EnvironmentProblem, PlatformError
from trainserve.kube.names import ENV_OUTPUT, ENV_STORE
from trainserve.machine.bucket.store import Bucket, open_bucket
from trainserve.machine.files import UNFINISHED, write_json
from trainserve.train.grace import Grace

LOOK_S = 1.0  # between two looks at the folder
SEND_S = 30.0  # between two copies of a file that grows; a new checkpoint takes everything with it
SMALL = 64 * 2**20  # bytes: up to here a file is read whole, so that it may grow meanwhile
RETRY_S = 15.0  # after a bucket has refused; the client itself has repeated before
TELL_S = 60.0  # between two warnings
LAST_S = 600.0  # how long the last copy is tried for, after a good end
STOPPED_S = 60.0  # the same after SIGTERM, or after a failure, where nobody has said how long the pod has to end
RECORD = ".stored.json"  # what the bucket has: name -> [bytes, time of change]
CHECKPOINTS = "checkpoints/"
META = "meta.json"
TORN = "torn-"

Stamp = tuple[int, int]  # bytes, time of change in ns

log = logging.getLogger(__name__)


@dataclass
class Store:
    """One run's output folder and its copy."""

    bucket: Bucket
    output: Path
    _sent: dict[str, Stamp] = field(default_factory=dict)
    _record: Stamp | None = None
    _grown_at: float = float("-inf")

    def changed(self) -> list[str]:
        """Names whose files the bucket does not have as they are, in the order in which they are to be sent."""
        self._read_record()
        there = self._there()
        return sorted((name for name, now in there.items() if self._sent.get(name) != now), key=_order)

    def send(self, names: Iterable[str], give_up: Callable[[], bool] = lambda: False) -> None:
        """Send these files, then remove from the bucket what checkpoints are gone. Raises PlatformError."""
        for name in names:
            if give_up():
                return
            path = self.output / name
            try:
                now = stamp(path)
                if now[0] <= SMALL:
                    self.bucket.write(name, path.read_bytes())
                else:
                    self.bucket.send(path, name)
            except FileNotFoundError:
                continue  # an old checkpoint that was removed meanwhile
            self._sent[name] = now
        self._forget()
        self._write_record()

    def is_due(self, names: Iterable[str], now: float) -> bool:
        """Whether to send now: a checkpoint at once, what grows every half a minute."""
        return any(name.endswith(f"/{META}") for name in names) or now - self._grown_at >= SEND_S

    def was_sent(self, now: float) -> None:
        self._grown_at = now

    def _forget(self) -> None:
        """Remove checkpoints from the bucket that retention has removed here, if a newer one is there."""
        here = {_step(name) for name in self._there() if name.endswith(f"/{META}")} & {_step(n) for n in self._sent}
        newest = max((step for step in here if step), default="")
        gone = [name for name in self._sent if _step(name) and _step(name) not in here and _step(name) < newest]
        if gone:
            self.bucket.remove(sorted(gone, key=_order, reverse=True))  # its meta.json first
            for name in gone:
                del self._sent[name]

    def _there(self) -> dict[str, Stamp]:
        found: dict[str, Stamp] = {}
        for path in self.output.rglob("*"):
            name = path.relative_to(self.output).as_posix()
            if any(part.startswith((".", TORN)) or part.endswith(UNFINISHED) for part in name.split("/")):
                continue
            try:
                if path.is_file():
                    found[name] = stamp(path)
            except FileNotFoundError:
                continue
        return found

    def _read_record(self) -> None:
        """What `bring_back`, a process of rank 0's, has written since the last look."""
        path = self.output / RECORD
        try:
            now = stamp(path)
            if now == self._record:
                return
            self._sent |= {name: (size, changed) for name, (size, changed) in json.loads(path.read_bytes()).items()}
            self._record = now
        except FileNotFoundError:
            return

    def _write_record(self) -> None:
        write_json(self.output / RECORD, self._sent, indent=None)
        self._record = stamp(self.output / RECORD)


def opened(env: Mapping[str, str]) -> Store | None:
    """The store that the environment names, or None. Raises UserError, EnvironmentProblem."""
    url = env.get(ENV_STORE)
    return Store(open_bucket(url), Path(env.get(ENV_OUTPUT, "output")).absolute()) if url else None


class Keeper:
    """Sends what changes, until `close`. `grace`: how long the pod has to end."""

    def __init__(self, store: Store, grace: Grace | None = None) -> None:
        self._store = store
        self._grace = grace or Grace()
        self._stopped_s = STOPPED_S if self._grace.seconds is None else self._grace.seconds
        self._closing = threading.Event()
        self._warned = float("-inf")
        self._give_up = float("inf")
        self._thread = threading.Thread(target=self._keep, name="store", daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Less time is left for `close` from now on: the pod is told to end."""
        self._give_up = min(self._give_up, time.monotonic() + self._stopped_s)

    def close(self, *, well: bool) -> PlatformError | None:
        """Send the rest; the error where that cannot be done. `well`: the run has ended well, and all depends on it."""
        self._give_up = time.monotonic() + (LAST_S if well else self._stopped_s)
        self._closing.set()
        while self._thread.is_alive():
            self._thread.join(LOOK_S)
            if time.monotonic() > self._give_up:
                return EnvironmentProblem(f"{self._store.bucket.url} did not take in time what was being sent")
        while True:
            try:
                if names := self._store.changed():
                    self._store.send(names)
                log.info("the output is in %s", self._store.bucket.url)
                return None
            except PlatformError as error:
                if time.monotonic() + RETRY_S > self._give_up:
                    return error
                self._warn(error)
                time.sleep(RETRY_S)
            except OSError as error:  # the folder itself
                return EnvironmentProblem(f"{self._store.output} cannot be read: {error.strerror or error}")

    def _keep(self) -> None:
        while not self._closing.wait(LOOK_S):
            try:
                names = self._store.changed()
                began = time.monotonic()
                if names and self._store.is_due(names, began):
                    self._store.send(names, self._closing.is_set)
                    self._store.was_sent(time.monotonic())
                    self._measure(names, time.monotonic() - began)
            except (PlatformError, OSError, ValueError) as error:
                self._warn(error)
                self._closing.wait(RETRY_S)

    def _measure(self, names: Iterable[str], took_s: float) -> None:
        if any(name.endswith(f"/{META}") for name in names):
            hardly_fits = self._grace.warning(f"sending a checkpoint to {self._store.bucket.url}", took_s)
            if hardly_fits:
                log.warning("%s", hardly_fits)

    def _warn(self, error: Exception) -> None:
        if time.monotonic() - self._warned >= TELL_S:
            self._warned = time.monotonic()
            log.warning("the output cannot be sent, training goes on, and it is tried again: %s", error)


def _order(name: str) -> tuple[int, str, int, str]:
    """Checkpoints first, events last; in a folder the file that speaks of the others last."""
    folder, _, last = name.rpartition("/")
    rank = 0 if name.startswith(CHECKPOINTS) else 2 if name == "events.jsonl" else 1
    return rank, folder, int(last in {META, "model.json"}), last


def _step(name: str) -> str:
    """The checkpoint that a name belongs to, or ""."""
    return name.split("/")[1] if name.startswith(CHECKPOINTS) and name.count("/") > 1 else ""


def stamp(path: Path) -> Stamp:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
