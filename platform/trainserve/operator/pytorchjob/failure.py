"""Why a pod failed: the cause goes before the exit code, and the first failure before those it brought about."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from trainserve.errors import EXIT_PEER_LOST, EXIT_SIGTERM, EXIT_STALLED
from trainserve.kube.names import REASON_NODE_LOST
from trainserve.operator.pytorchjob.observed import Ended, Pod

# Reasons of pods that ended through no fault of their own: the cluster took away what they ran on.
_TAKEN_AWAY = frozenset(
    {
        "Evicted",
        "Preempted",
        "Preempting",
        "Preemption",
        "Shutdown",
        "NodeShutdown",
        "Terminated",  # a kubelet's word for a node that shuts down gracefully
        REASON_NODE_LOST,
        "NodeAffinity",
        "UnexpectedAdmissionError",
    }
)
_CANNOT_START = frozenset({"ContainerCannotRun", "StartError"})
_LONGEST_DETAIL = 400  # letters; a condition is read in one glance


class Cause(Enum):
    """What kind of failure it was, in the order in which one is the likelier cause of others in the same second."""

    OUT_OF_MEMORY = 0  # the same would happen again
    TAKEN_AWAY = 1  # eviction, preemption, node shut down or lost, pod deleted by somebody
    STALLED = 2  # 201: made no step for too long, and its agent ended it
    RETRYABLE = 3  # exit code >= 128
    UNKNOWN = 4  # no exit code at all
    PERMANENT = 5  # exit code 1-127
    STOPPED = 6  # 143: checkpointed on SIGTERM
    VICTIM = 7  # 200: lost a peer

    @property
    def word(self) -> str:
        """As in the API: `OutOfMemory`."""
        return self.name.title().replace("_", "")


@dataclass(frozen=True)
class Failure:
    """One pod's failure. `time` in unix seconds; `exact` when it has parts of a second."""

    replica_type: str
    index: int
    cause: Cause
    time: float
    exact: bool
    sentence: str  # "Worker 2: rank 2 was killed by SIGKILL (exit code 137)"


def failure_of(pod: Pod, now: float) -> Failure | None:
    """How `pod` failed, or None when it has not. `now` stands in for a time that nobody wrote down."""
    end = pod.init_end or pod.main_end
    code = end.exit_code if end is not None else None
    broken = pod.phase == "Failed" or (end is not None and code != 0 and not pod.restarting)
    if not broken and not (pod.deleting and not pod.ended):
        return None
    report = end.report() if end is not None else {}
    at = report.get("time")
    exact = isinstance(at, (int, float)) and not isinstance(at, bool)
    finished = end.finished_at if end is not None else None
    if pod.deletion_asked_at is not None:
        time, exact = pod.deletion_asked_at, False
    elif exact:
        time = float(at)  # type: ignore[arg-type]
    else:
        time = now if finished is None else finished
    cause, detail = _judge(pod, end, code)
    return Failure(pod.replica_type, pod.index, cause, time, exact, f"{pod.title}: {detail}")


def in_place_out_of_memory(pod: Pod, now: float) -> Failure | None:
    """The failure of a container that memory ran out for, also when its kubelet has started it again since."""
    for end in (pod.main_end, pod.last_end):
        detail = _out_of_memory(end)
        if detail and end is not None:
            at = now if end.finished_at is None else end.finished_at
            sentence = f"{pod.title}: {detail}"
            return Failure(pod.replica_type, pod.index, Cause.OUT_OF_MEMORY, at, False, sentence)
    return None


def first_failure(failures: Iterable[Failure]) -> Failure:
    """The one that brought the others about: the earliest that is no victim.

    A kubelet's times have whole seconds; within one second of which not all is known exactly, the kind decides.
    """
    failures = list(failures)
    candidates = [failure for failure in failures if failure.cause is not Cause.VICTIM] or failures
    second = min(int(failure.time) for failure in candidates)
    rivals = [failure for failure in candidates if int(failure.time) == second]
    if all(failure.exact for failure in rivals):
        return min(rivals, key=lambda failure: (failure.time, failure.replica_type, failure.index))
    return min(rivals, key=lambda failure: (failure.cause.value, failure.time, failure.replica_type, failure.index))


def _judge(pod: Pod, end: Ended | None, code: int | None) -> tuple[Cause, str]:
    out_of_memory = _out_of_memory(end)
    if out_of_memory:
        return Cause.OUT_OF_MEMORY, out_of_memory
    if pod.disruption:
        return Cause.TAKEN_AWAY, f"the cluster took its pod away: {_short(pod.disruption)}"
    if pod.reason in _TAKEN_AWAY or pod.reason.startswith("OutOf"):
        return Cause.TAKEN_AWAY, f"{pod.reason}: {_short(pod.message)}" if pod.message else pod.reason
    if pod.deleting:
        return Cause.TAKEN_AWAY, f"its pod {pod.name} was deleted"
    if end is None or code is None:
        detail = ": ".join(part for part in (pod.reason, _short(pod.message)) if part)
        return Cause.UNKNOWN, f"ended without an exit code{f' ({detail})' if detail else ''}"
    told = _told(end, code)
    if end.reason in _CANNOT_START:
        return Cause.PERMANENT, told
    if code == EXIT_PEER_LOST:
        return Cause.VICTIM, told
    if code == EXIT_SIGTERM:
        return Cause.STOPPED, told
    if code == EXIT_STALLED:
        return Cause.STALLED, told
    if code == 0:  # the pod failed although its main container did not: a sidecar, or a deadline of the pod's own
        return (
            Cause.UNKNOWN,
            f"the pod failed although its container ended well{f' ({pod.reason})' if pod.reason else ''}",
        )
    return (Cause.RETRYABLE if code >= 128 else Cause.PERMANENT), told


def _out_of_memory(end: Ended | None) -> str:
    if end is None:
        return ""
    report = end.report()
    if end.reason == "OOMKilled":
        return (
            f"{report.get('cause') or 'its container was killed'}: out of memory (OOMKilled, exit code {end.exit_code})"
        )
    child = "killed by signal: Killed" in str(report.get("message") or "")  # torch's words of a data worker
    if report.get("oomKills") and (report.get("signal") == "SIGKILL" or child):
        return f"{report.get('cause') or 'a rank was killed'}: out of memory"
    return ""


def _told(end: Ended, code: int) -> str:
    """What the pod's own agent says, else what its container's end says: signal and last line of the log."""
    report = end.report()
    if report.get("cause"):
        message = _short(str(report.get("message") or ""))
        return f"{report['cause']}{f': {message}' if message else ''}"
    reason = f"{end.reason}, " if end.reason and end.reason not in {"Error", "Completed"} else ""
    lines = [line.strip() for line in end.message.splitlines() if line.strip()]
    last_line = f": {_short(lines[-1])}" if lines else ""
    return f"{reason}exit code {code}{_signal(code)}{last_line}"


def _signal(code: int) -> str:
    try:
        return f" ({signal.Signals(code - 128).name})" if code > 128 else ""
    except ValueError:
        return ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_DETAIL else line[: _LONGEST_DETAIL - 1] + "…"
