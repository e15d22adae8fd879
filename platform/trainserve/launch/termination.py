"""The termination message: what a pod leaves behind to say why it failed (docs/architecture.md, "A pod")."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainserve.errors import EXIT_DATA, EXIT_PEER_LOST, EXIT_SIGTERM, EXIT_STALLED, EXIT_USER
from trainserve.kube.names import ENV_TERMINATION_LOG

MAX_BYTES = 4096  # a kubelet cuts what is longer, and half a JSON document says nothing
BY_AGENT = {"SIGTERM", "SIGINT", "SIGKILL"}  # what an agent ends ranks with
IN_A_POD = Path("/dev/termination-log")


@dataclass(frozen=True)
class Failure:
    """How one rank failed. `code` as an exit code (128 + n for signal n), `time` in unix seconds."""

    rank: int
    code: int
    time: float
    signal: str | None = None
    message: str = ""
    traceback: str = ""


def failure(rank: int, returncode: int, time: float, error_file: Path | None) -> Failure:
    """From a process's return code (negative: killed by that signal) and what it wrote before it died."""
    message, traceback = read_error_file(error_file) if error_file else ("", "")
    if returncode < 0:
        return Failure(rank, 128 - returncode, time, signal_name(-returncode), message, traceback)
    return Failure(rank, returncode, time, None, message, traceback)


def first(own: Sequence[Failure], asked: Sequence[Failure] = ()) -> Failure | None:
    """The failure that explains the others, of lists in the order they happened; None where there is none.

    `own` happened by themselves, `asked` after the agent had told the ranks to end. A rank that lost its peer is a
    victim wherever another one failed by itself, even a moment later; what ended as it was told explains nothing.
    """
    causes = [what for what in own if what.code != EXIT_PEER_LOST]
    late = [what for what in asked if what.code not in {EXIT_PEER_LOST, EXIT_SIGTERM} and what.signal not in BY_AGENT]
    return next(iter([*causes, *late, *own, *asked]), None)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"  # real-time signals have no name


def cause(what: Failure, oom_kills: int = 0) -> str:
    """One sentence: who failed and how."""
    rank = f"rank {what.rank}"
    if what.signal:
        memory = " because memory ran out" if oom_kills and what.signal == "SIGKILL" else ""
        return f"{rank} was killed by {what.signal}{memory} (exit code {what.code})"
    meaning = {
        EXIT_USER: "refused its input",
        EXIT_DATA: "found the data wrong",
        EXIT_SIGTERM: "stopped on SIGTERM",
        EXIT_PEER_LOST: "lost contact with another rank",
        EXIT_STALLED: "stalled",
    }.get(what.code, "failed")
    return f"{rank} {meaning} (exit code {what.code})"


def peak_mib() -> int:
    """The largest resident size that any ended child of this process had, or a child of one it waited for; in MiB."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)  # there bytes, elsewhere KiB


def encode(what: Failure, oom_kills: int = 0, peak_mib: int = 0) -> str:
    """The message as JSON of at most 4096 bytes: the traceback loses its beginning, then the message its end."""
    document: dict[str, Any] = {
        "rank": what.rank,
        "exitCode": what.code,
        "signal": what.signal,
        "time": round(what.time, 6),
        "cause": cause(what, oom_kills),
        "message": what.message[:MAX_BYTES],
        "traceback": what.traceback[-MAX_BYTES:],
        "oomKills": oom_kills,
        "peakMib": peak_mib,
    }
    text = json.dumps(document)
    for field, keep_end in (("traceback", True), ("message", False)):
        while len(text) > MAX_BYTES and document[field]:
            # One character may take twelve bytes as JSON (a pair of \u escapes), so go on until it fits.
            cut = max(1, (len(text) - MAX_BYTES) // 12)
            document[field] = document[field][cut:] if keep_end else document[field][:-cut]
            text = json.dumps(document)
    return text


def read_error_file(path: Path) -> tuple[str, str]:
    """Message and traceback that a rank wrote to TORCHELASTIC_ERROR_FILE; both "" where it wrote none."""
    try:
        content = json.loads(path.read_text())
        message = content["message"]
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""  # killed before, or while, it wrote
    if not isinstance(message, dict):
        return str(message), ""
    extra = message.get("extraInfo")
    return str(message.get("message", "")), str(extra.get("py_callstack", "")) if isinstance(extra, dict) else ""


def write(text: str) -> Path | None:
    """Leave `text` where the kubelet looks for it; returns the path, or None where nobody looks.

    Written in place: in a pod the file is a bind mount, which nothing can be renamed onto; it is read after our end.
    """
    named = os.environ.get(ENV_TERMINATION_LOG)
    path = Path(named) if named else IN_A_POD
    if not named and not os.access(path, os.W_OK):
        return None
    path.write_text(text)
    return path
