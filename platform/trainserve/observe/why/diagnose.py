"""`diagnose(evidence)`: what happened to a run, who began it, who followed, and what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from trainserve.errors import EXIT_PEER_LOST
from trainserve.kube import moments, names
from trainserve.observe.why import states
from trainserve.observe.why import traceback as stacks
from trainserve.observe.why.evidence import Evidence, PodEvidence
from trainserve.observe.why.rule import Cause
from trainserve.observe.why.scene import Scene, exit_words, scene_of, scene_of_condition, scene_of_words
from trainserve.observe.why.table import cause_of

# Of what rank 0 said once: checkpoints that were lost, pictures that were left out.
_NOTABLE = re.compile(r"is torn|training starts again|cannot be read|was skipped")
_NOTES = 5  # the newest


@dataclass(frozen=True)
class Victim:
    """A rank, or a whole pod, that ended because of the first one."""

    who: str
    how: str


@dataclass(frozen=True)
class Restart:
    """What ended one generation of the gang."""

    generation: int
    time: float | None  # unix seconds
    cause: str  # its id
    title: str
    counted: bool  # against backoffLimit


@dataclass(frozen=True)
class Diagnosis:
    """What `platform why` shows. `advice` is one thing to do: a command, or a field."""

    run: str
    state: str
    cause: str  # an id of the table of rules, or of a state: "none", "suspended", "interrupted", ...
    title: str
    advice: str
    rank: int | None = None
    pod: str = ""
    node: str = ""
    generation: int = 0
    exit_code: int | None = None
    exit: str = ""
    excerpt: Sequence[str] = ()
    own_frames: Sequence[str] = ()
    memory: Mapping[str, Any] = field(default_factory=dict)  # {"oomKills": int, "peakMib": int}
    victims: Sequence[Victim] = ()
    restarts: Sequence[Restart] = ()
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON and YAML, with the names that the rest of the command line has."""
        words = {"exit_code": "exitCode", "own_frames": "ownFrames"}
        return {words.get(key, key): _plain(value) for key, value in asdict(self).items()}


def diagnose(evidence: Evidence) -> Diagnosis:
    """What is wrong with a run, or that nothing is. Every state has an answer."""
    restarts = history(evidence)
    failed = evidence.condition(names.FAILED)
    current = [pod for pod in evidence.pods if pod.generation == evidence.generation and pod.failed]
    notes = [*evidence.notes, *[notice for notice in evidence.notices if _NOTABLE.search(notice)][-_NOTES:]]
    if failed:
        job_cause = states.of_failed(evidence, failed)
        pod = culprit(current, str(evidence.status.get("cause") or ""))
        if job_cause is not None and (pod is None or failed.get("reason") == names.REASON_DEADLINE):
            return _of_state(evidence, job_cause, restarts, notes)
        if failed.get("reason") == names.REASON_BACKOFF_LIMIT:
            limit = f"it was the last of {len(restarts) + 1} failures: {failed.get('message', '').partition('. ')[0]}"
            notes.insert(0, limit)
        if pod is None:
            return _of_state(evidence, _of_words(evidence, failed), restarts, notes)
        return _of_pod(evidence, pod, current, restarts, notes)
    broken = culprit([pod for pod in current if pod.phase not in {"Running", "Succeeded"}], "")
    if broken is not None and evidence.state in {names.RUNNING, names.CREATED, names.PENDING, names.RESTARTING}:
        return _of_pod(evidence, broken, current, restarts, notes)
    stuck = next((pod for pod in evidence.pods if states.is_stuck(pod, evidence)), None)
    if stuck is not None:
        return _of_pod(evidence, stuck, [], restarts, notes)
    pending = evidence.condition(names.PENDING)
    if pending:
        return _of_state(evidence, cause_of(scene_of_condition(evidence, pending)), restarts, notes)
    known = _known(evidence, str(evidence.status.get("cause") or "")) if evidence.state == names.RESTARTING else None
    if known is not None:
        known = replace(known, title=f"the gang is being restarted: {known.title}")
        return _of_state(evidence, known, restarts, notes)
    return _of_state(evidence, states.of_state(evidence, restarts[-1].title if restarts else ""), restarts, notes)


def culprit(pods: Sequence[PodEvidence], sentence: str) -> PodEvidence | None:
    """The pod that failed first: the one that the controller named, else the earliest that is no victim."""
    failed = [pod for pod in pods if pod.failed]
    for pod in failed:
        if sentence.startswith(f"{pod.title}: "):
            return pod
    causes = [pod for pod in failed if pod.exit_code != EXIT_PEER_LOST] or failed
    return min(causes, key=lambda pod: (pod.time, pod.name), default=None)


def history(evidence: Evidence) -> list[Restart]:
    """Why each earlier generation ended, oldest first: from the job's own record, else from what its pods left."""
    told = {int(entry["generation"]): entry for entry in evidence.status.get("history") or []}
    generations = {pod.generation for pod in evidence.pods if pod.report and pod.generation != evidence.generation}
    found = []
    for generation in sorted(generations | set(told)):
        entry = told.get(generation, {})
        sentence = str(entry.get("cause") or "")
        pods = [pod for pod in evidence.pods if pod.generation == generation]
        pod = culprit(pods, sentence)
        if not entry and (pod is None or pod.report.get("exitCode") == 143):
            continue  # a generation that was suspended, or of which nothing is left
        if pod is None or (sentence and not sentence.startswith(f"{pod.title}: ")):
            cause = replace(_known(evidence, sentence) or Cause("unknown", sentence, ""), title=sentence)
        else:
            cause = cause_of(scene_of(evidence, pod, sentence=sentence))
        time = moments.unix(entry.get("time")) if entry else (None if pod is None else pod.time)
        found.append(Restart(generation, time, cause.id, cause.title, not entry.get("free", False)))
    return found


def _of_words(evidence: Evidence, failed: Mapping[str, Any]) -> Cause:
    """Of a failed job of whose pods nothing is left: what its controller kept of the first failure."""
    sentence = str(evidence.status.get("cause") or "")
    return _known(evidence, sentence) or states.unexplained(evidence, failed)


def _known(evidence: Evidence, sentence: str) -> Cause | None:
    """What the table says of a sentence; None where it only knows that there was an error."""
    cause = cause_of(scene_of_words(evidence, sentence)) if sentence else None
    return None if cause is None or cause.id in ("exception", "unknown") else cause


def _of_pod(
    evidence: Evidence,
    pod: PodEvidence,
    others: Sequence[PodEvidence],
    restarts: Sequence[Restart],
    notes: Sequence[str],
) -> Diagnosis:
    scene = scene_of(evidence, pod, sentence=str(evidence.status.get("cause") or ""))
    cause = cause_of(scene)
    frames = [frame for frame in stacks.frames(scene.traceback) if frame.own]
    memory = {key: pod.report[key] for key in ("oomKills", "peakMib") if pod.report.get(key)}
    return Diagnosis(
        run=evidence.run,
        state=evidence.state,
        cause=cause.id,
        title=cause.title,
        advice=cause.advice,
        rank=scene.rank,
        pod=pod.name,
        node=pod.node,
        generation=pod.generation,
        exit_code=scene.code,
        exit=exit_words(scene.code, scene.signal) if scene.code is not None else pod.reason,
        excerpt=_excerpt(scene),
        own_frames=[str(frame) for frame in frames[-stacks.SHOWN_FRAMES :]],
        memory=memory,
        victims=_victims(pod, others),
        restarts=restarts,
        notes=notes,
    )


def _of_state(evidence: Evidence, cause: Cause, restarts: Sequence[Restart], notes: Sequence[str]) -> Diagnosis:
    log = evidence.supervisor_log if evidence.state == names.INTERRUPTED else ""
    return Diagnosis(
        run=evidence.run,
        state=evidence.state,
        cause=cause.id,
        title=cause.title,
        advice=cause.advice,
        generation=evidence.generation,
        excerpt=stacks.excerpt(stacks.last(log)),
        restarts=restarts,
        notes=notes,
    )


def _victims(first: PodEvidence, others: Sequence[PodEvidence]) -> list[Victim]:
    found = []
    alone = first.report.get("rank")
    found += [Victim(f"rank {rank}", "was ended by its node's agent") for rank in first.ranks if rank != alone]
    for pod in others:
        if pod is first:
            continue
        rank = pod.report.get("rank")
        who = f"rank {rank} ({pod.title})" if rank is not None else pod.title
        found.append(Victim(who, exit_words(pod.exit_code, str(pod.report.get("signal") or ""))))
    return found


def _excerpt(scene: Scene) -> list[str]:
    """The traceback, unless it only shows where our own code said a sentence: then the sentence."""
    said = stacks.errors(scene.traceback).startswith("Traceback") and "\ntrainserve.errors." in scene.traceback
    if said and scene.message and not any(frame.own for frame in stacks.frames(scene.traceback)):
        return _last_words("", scene.message)
    return stacks.excerpt(scene.traceback) or _last_words(scene.log, scene.message)


def _last_words(log: str, message: str) -> list[str]:
    if message:
        return [line for line in message.splitlines() if line.strip() and not line.startswith("hint: ")]
    return [line.rstrip() for line in log.splitlines() if line.strip()][-6:]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
