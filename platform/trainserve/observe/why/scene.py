"""One failure as the rules look at it: who, how, what was said, and what it takes to advise."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainserve.errors import (
    EXIT_DATA,
    EXIT_ENVIRONMENT,
    EXIT_PEER_LOST,
    EXIT_SIGTERM,
    EXIT_STALLED,
    EXIT_USER,
)
from trainserve.observe.why import traceback as stacks
from trainserve.observe.why.evidence import Evidence, PodEvidence
from trainserve.spec.classifier import node_range

_LOG_LINES = 60  # of the end of a log, where nothing better says what happened
_MEANING = {
    0: "ended well",
    1: "ended with an error",
    EXIT_USER: "refused its input",
    EXIT_ENVIRONMENT: "found this machine lacking something",
    EXIT_DATA: "found the pictures wrong",
    126: "the command cannot be executed",
    127: "the command was not found",
    EXIT_SIGTERM: "stopped on SIGTERM, after its checkpoint",
    EXIT_PEER_LOST: "lost contact with another rank",
    EXIT_STALLED: "made no step for too long",
}
_DEATHS: dict[int, str] = {
    signal.SIGABRT: "aborted itself (SIGABRT)",
    signal.SIGBUS: "touched memory that is not there (SIGBUS, bus error)",
    signal.SIGFPE: "divided by zero (SIGFPE)",
    signal.SIGILL: "met an instruction that this processor does not have (SIGILL)",
    signal.SIGINT: "was interrupted (SIGINT)",
    signal.SIGKILL: "was killed from outside (SIGKILL)",
    signal.SIGSEGV: "touched memory it must not (SIGSEGV, segmentation fault)",
}


@dataclass(frozen=True)
class Scene:
    """`said` is what the failing rank wrote on purpose and its traceback; `log` the end of its log."""

    evidence: Evidence
    pod: PodEvidence | None = None
    rank: int | None = None
    code: int | None = None
    signal: str = ""
    message: str = ""
    traceback: str = ""
    log: str = ""
    oom_kills: int = 0
    reason: str = ""  # the pod's
    job_reason: str = ""  # of the job's condition Failed
    sentence: str = ""  # the controller's
    found: Mapping[str, str] = field(default_factory=dict)  # what the rule's pattern caught

    @property
    def said(self) -> str:
        return "\n".join(filter(None, (self.message, stacks.errors(self.traceback))))

    @property
    def all(self) -> str:
        """The same and the end of the log."""
        return f"{self.said}\n{self.log}"

    @property
    def who(self) -> str:
        """`rank 2`, or the pod where no rank had started."""
        if self.rank is not None:
            return f"rank {self.rank}"
        return self.pod.title if self.pod is not None else "the run"

    @property
    def train(self) -> Mapping[str, Any]:
        return self.evidence.spec.get("train") or {}

    def resume(self) -> str:
        """The command that goes on from the newest checkpoint."""
        return f"platform resume {self.evidence.run}"

    def again(self, flags: str) -> str:
        """The command that trains anew with other settings."""
        return self.evidence.again(flags)

    def logs(self) -> str:
        """The command that shows all that the failing rank wrote."""
        return f"platform logs {self.evidence.run}" + (f" --rank {self.rank}" if self.rank is not None else "")

    def smaller_batch(self) -> int:
        """Half the global batch, still a multiple of the processes."""
        nodes = node_range(self.train.get("nodes"))[1] or 1
        gpus = (self.evidence.spec.get("pod") or {}).get("gpus")
        ranks = nodes * int(self.train.get("nprocPerNode") or gpus or 1)
        batch = int(self.train.get("batchSize") or 64)
        return max(ranks, batch // 2 // ranks * ranks)


def scene_of(evidence: Evidence, pod: PodEvidence, *, sentence: str = "", job_reason: str = "") -> Scene:
    """The failure of `pod`."""
    report = pod.report
    rank = report.get("rank")
    rank = rank if isinstance(rank, int) else (pod.ranks[0] if len(pod.ranks) == 1 else None)
    log = stacks.lines_of_rank(pod.log, rank, pod.ranks)
    told = str(report.get("traceback") or "")
    code = pod.exit_code if pod.exit_code is not None else report.get("exitCode")
    number = code - 128 if isinstance(code, int) and 128 < code < 128 + 64 else 0
    return Scene(
        evidence=evidence,
        pod=pod,
        rank=rank,
        code=code,
        signal=str(report.get("signal") or "") or _signal_name(number),
        message=str(report.get("message") or "") or pod.message,
        traceback=told or stacks.last(log) or stacks.last(pod.log),
        log="\n".join((log or pod.log).splitlines()[-_LOG_LINES:]),
        oom_kills=int(report.get("oomKills") or 0),
        reason=pod.reason,
        job_reason=job_reason,
        sentence=sentence,
    )


def scene_of_words(evidence: Evidence, sentence: str) -> Scene:
    """A failure of which only the controller's sentence is left: `Worker 1: rank 2 failed (exit code 137): ...`."""
    head, _, detail = sentence.partition(": ")
    rank = re.search(r"\brank (\d+)\b", detail)
    code = re.search(r"\bexit code (\d+)\b", detail)
    killed = re.search(r"\b(SIG[A-Z]+)\b", detail)
    out_of_memory = "out of memory" in detail
    return Scene(
        evidence=evidence,
        pod=PodEvidence(name="", title=head) if detail else None,
        rank=int(rank[1]) if rank else None,
        code=int(code[1]) if code else None,
        signal=killed[1] if killed else "",
        message=re.sub(r"^.*?\(exit code \d+\)(: )?", "", detail) if code else detail,
        oom_kills=int(out_of_memory),
        reason="OOMKilled" if out_of_memory else "",
        sentence=sentence,
    )


def scene_of_condition(evidence: Evidence, condition: Mapping[str, Any]) -> Scene:
    """What keeps a job waiting, in the words of its condition."""
    return Scene(
        evidence=evidence,
        message=str(condition.get("message") or ""),
        reason=str(condition.get("reason") or ""),
        sentence=str(condition.get("message") or ""),
    )


def exit_words(code: int | None, signal_name: str = "") -> str:
    """How a process ended: `exit code 139: touched memory it must not (SIGSEGV, segmentation fault)`."""
    if code is None:
        return "no exit code"
    number = _number(signal_name) if signal_name else code - 128
    if code in {EXIT_SIGTERM, EXIT_PEER_LOST, EXIT_STALLED} or not (signal_name or 128 < code < 128 + 64):
        return f"exit code {code}" + (f": {_MEANING[code]}" if code in _MEANING else ": an error of its own")
    name = signal_name or _signal_name(number)
    return f"exit code {code}: {_DEATHS.get(number, f'was killed by {name}' if name else 'an error of its own')}"


def search(pattern: str, text: str) -> Mapping[str, str] | None:
    """What a pattern's named groups catch; None where it is not found."""
    match = re.search(pattern, text, re.MULTILINE)
    return None if match is None else {key: value or "" for key, value in match.groupdict().items()}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


def _number(name: str) -> int:
    try:
        return int(signal.Signals[name])
    except KeyError:
        return 0
