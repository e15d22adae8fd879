"""The logs of all nodes in the output of a run on a cluster: `logs/g<generation>/<pod>-rank<k>.log`.

The pods and their logs go one day, the output stays. The Master's agent, where the output is, writes them and takes the
lines of the other nodes on LOGS_PORT; their agents send them, and go on without where that cannot be. Each connection
says first whose it is, `{"uid", "generation", "pod"}`; then come lines, `<rank or -> <text>`. What strangers could do
is bounded: the job's uid must be right, names are checked, and files have a largest size.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from trainserve.kube import names
from trainserve.launch.tee import LONGEST, Line, Lines, teed
from trainserve.machine.ports import is_loopback

TOTAL = 2**30  # bytes of all logs of a generation
LARGEST = 64 * 2**20  # bytes of one
FEWEST = 256 * 1024  # bytes that each may have, however many there are
HELLO_S = 5.0  # for the first line of a connection
SILENT_S = 24 * 3600.0
LINGER_S = 3.0  # for the last lines of others, once this node has ended
AGAIN_S = 2.0  # until the Master is asked for again
WAIT_S = 0.5
_POD = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

log = logging.getLogger(__name__)


class Files:
    """The logs of one generation, as files below `folder`. Methods may be called from several threads."""

    def __init__(self, folder: Path, world_size: int) -> None:
        self._folder = folder
        self._world_size = world_size
        self._largest = max(FEWEST, min(LARGEST, TOTAL // max(1, world_size)))
        self._open: dict[str, tuple[IO[bytes], int]] = {}  # the file, and its bytes
        self._lock = threading.Lock()
        self._told = False

    def write(self, pod: str, rank: int | None, line: bytes) -> None:
        """Append a line; one too many is left out, one that the disk refuses too, and both are told once."""
        if rank is not None and rank >= self._world_size:
            return
        name = f"{pod}-{'agent' if rank is None else f'rank{rank}'}.log"
        with self._lock:
            try:
                file, size = self._open.get(name) or self._opened(name)
                if size < self._largest <= size + len(line):
                    line = f"({self._largest:,} bytes are kept; kubectl logs has the rest)\n".encode()
                    size = self._largest
                if size <= self._largest and line:
                    if size < self._largest or line.startswith(b"("):
                        file.write(line)
                        file.flush()
                    self._open[name] = (file, size + len(line))
            except OSError as error:
                if not self._told:
                    self._told = True
                    log.warning("logs cannot be kept in %s: %s", self._folder, error.strerror or error)

    def close(self) -> None:
        with self._lock:
            for file, _ in self._open.values():
                with suppress(OSError):
                    file.close()
            self._open.clear()

    def _opened(self, name: str) -> tuple[IO[bytes], int]:
        if len(self._open) > 2 * self._world_size:
            raise OSError(f"more than {2 * self._world_size} logs")
        self._folder.mkdir(parents=True, exist_ok=True)
        file = (self._folder / name).open("ab", buffering=LONGEST)
        return file, file.tell()


class Receiver:
    """Takes the lines of other nodes."""

    def __init__(self, listener: socket.socket, files: Files, uid: str, generation: str, nodes: int) -> None:
        self._listener, self._files = listener, files
        self._uid, self._generation = uid, generation
        self._room = threading.Semaphore(nodes + 8)
        self._others = nodes - 1
        self._open = self._seen = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._accept, name="logs", daemon=True).start()

    def close(self, patience_s: float = LINGER_S) -> None:
        """Wait for those that still send, or have not come yet, then take no more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open and self._seen >= self._others, patience_s)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if not self._room.acquire(blocking=False):
                connection.close()
                continue
            with self._changed:
                self._open += 1
                self._seen += 1
            threading.Thread(target=self._serve, args=(connection,), name="logs", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                connection.settimeout(HELLO_S)
                pod = self._whose(stream.readline(LONGEST))
                if pod is None:
                    return
                connection.settimeout(SILENT_S)
                while line := stream.readline(LONGEST):
                    who, _, text = line.partition(b" ")
                    rank = int(who) if who.isdigit() and len(who) < 8 else None
                    self._files.write(pod, rank, text if text.endswith(b"\n") else text + b"\n")
        except OSError as error:
            log.debug("a node's logs: %s", error)
        finally:
            self._room.release()
            with self._changed:
                self._open -= 1
                self._changed.notify()

    def _whose(self, hello: bytes) -> str | None:
        try:
            said = json.loads(hello)
            same = (said["uid"], said["generation"]) == (self._uid, self._generation)
            pod = said["pod"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return pod if same and isinstance(pod, str) and _POD.fullmatch(pod) else None


def send(lines: Lines, address: tuple[str, int], hello: Mapping[str, str], ended: threading.Event) -> None:
    """Send lines to the Master until there are no more; once `ended` is set, no new connection is tried."""
    connection: socket.socket | None = None
    told = False
    while True:
        found = lines.take(WAIT_S)
        if found is None:
            break
        while found:
            try:
                if connection is None:
                    connection = socket.create_connection(address, timeout=AGAIN_S)
                    connection.sendall(json.dumps(hello).encode() + b"\n")
                connection.sendall(b"".join(_encoded(found)))
                found = []
            except OSError as error:
                if connection is not None:
                    connection.close()
                    connection = None
                if ended.is_set():
                    return
                if not told:
                    told = True
                    log.debug("the logs of this node are not kept for now: %s", error)
                time.sleep(AGAIN_S)
    if connection is not None:
        connection.close()


def _encoded(lines: list[Line]) -> Iterator[bytes]:
    for rank, text in lines:
        yield (b"-" if rank is None else str(rank).encode()) + b" " + text


@contextmanager
def kept(env: Mapping[str, str]) -> Iterator[None]:
    """Keep what this node writes in the block, where `env` is that of a pod of a job that a command made for a cluster.

    Whatever goes wrong with it goes wrong without a word to the ranks: training is not held up by its own log.
    """
    output = env.get(names.ENV_OUTPUT)
    master = env.get(names.ENV_MASTER_ADDR)
    if not env.get(names.ENV_VERSION) or not (output or master):
        yield
        return
    pod, generation = pod_name(env), env.get(names.ENV_GENERATION, "0")
    processes = env.get(names.ENV_PET_NPROC_PER_NODE, "1")
    only = env.get(names.ENV_RANK) if processes == "1" and ":" not in env.get(names.ENV_PET_NNODES, "") else None
    lines = Lines()
    ended = threading.Event()
    receiver: Receiver | None = None
    files: Files | None = None
    if output:
        count = env.get(names.ENV_PET_NNODES, "1").rpartition(":")[2]
        nodes = int(count) if count.isdigit() else 1
        ranks = nodes * (int(processes) if processes.isdigit() else 64)
        files = Files(Path(output, names.LOGS_FOLDER, f"g{generation}"), ranks)
        receiver = _receiver(env, files, generation, nodes)
        keeping = threading.Thread(target=_write, args=(lines, files, pod, only), name="logs", daemon=True)
    else:
        hello = {"uid": env.get(names.ENV_JOB_UID, ""), "generation": generation, "pod": pod}
        address = (str(master), names.LOGS_PORT)
        keeping = threading.Thread(
            target=send, args=(_Named(lines, only), address, hello, ended), name="logs", daemon=True
        )
    keeping.start()
    try:
        with teed(lines):
            yield
    finally:
        ended.set()
        keeping.join(LINGER_S)
        if receiver is not None:
            receiver.close()
        if files is not None:
            files.close()


def pod_name(env: Mapping[str, str]) -> str:
    """What the controller calls this pod; a pod on the network of its node has that one's host name."""
    job, node = env.get(names.ENV_JOB, "").rpartition("/")[2], env.get(names.ENV_PET_NODE_RANK, "")
    if not (job and node.isdigit()):
        return socket.gethostname().lower()
    if ":" in env.get(names.ENV_PET_NNODES, ""):
        return names.replica_name(job, names.REPLICA_WORKER, int(node))
    if node == "0":
        return names.replica_name(job, names.REPLICA_MASTER, 0)
    return names.replica_name(job, names.REPLICA_WORKER, int(node) - 1)


class _Named(Lines):
    """Lines of a node with one rank, which does not name itself."""

    def __init__(self, lines: Lines, only: str | None) -> None:
        super().__init__()
        self._lines = lines
        self._only = int(only) if only and only.isdigit() else None

    def take(self, patience_s: float) -> list[Line] | None:
        found = self._lines.take(patience_s)
        return found and [(self._only if rank is None else rank, text) for rank, text in found]


def _write(lines: Lines, files: Files, pod: str, only: str | None) -> None:
    named = _Named(lines, only)
    while (found := named.take(WAIT_S)) is not None:
        for rank, text in found:
            files.write(pod, rank, text)


def _receiver(env: Mapping[str, str], files: Files, generation: str, nodes: int) -> Receiver | None:
    """None where nobody sends, or the port is taken: the logs of the other nodes are not kept then."""
    if nodes < 2 or ":" in env.get(names.ENV_PET_NNODES, ""):  # in an elastic job each node keeps its own
        return None
    master = env.get(names.ENV_MASTER_ADDR, "")
    try:
        if is_loopback(master):
            listener = socket.create_server((master, names.LOGS_PORT), backlog=128)
        elif socket.has_dualstack_ipv6():
            listener = socket.create_server(
                ("", names.LOGS_PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
            )
        else:
            listener = socket.create_server(("", names.LOGS_PORT), backlog=1024)
    except OSError as error:
        log.warning("port %d: %s: the logs of other nodes are not kept", names.LOGS_PORT, error.strerror or error)
        return None
    return Receiver(listener, files, env.get(names.ENV_JOB_UID, ""), generation, nodes)
