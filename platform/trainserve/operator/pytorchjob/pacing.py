"""How soon a gang starts again, and how often free of charge: read from `status.history`, so that a controller that
remembers nothing decides the same.

A restart belongs to a row as long as no new checkpoint was seen since the one before and they lie close together.
"""

from __future__ import annotations

from typing import Any

from trainserve.kube import moments
from trainserve.kube.cluster import Manifest
from trainserve.operator.pytorchjob.draft import Draft

KEPT = 20  # entries of `status.history`
FREE_IN_A_ROW = 10  # restarts free of charge without progress; those after that count against backoffLimit
STEADY_S = 600.0  # a gang that lasted so long begins a new row, also where nobody tells its progress
LONGEST_S = 60.0  # pause before a start


def record(draft: Draft, cause: str, reason: str, *, free: bool) -> None:
    """Add the end of the present generation to the history; call it before the next one begins.

    `cause` is a sentence, `reason` its kind in a word.
    """
    entry: dict[str, Any] = {
        "generation": draft.generation,
        "time": moments.rfc3339(draft.now),
        "cause": cause,
        "reason": reason,
        "free": free,
        "checkpointStep": _checkpoint_step(draft.status),
    }
    draft.status["history"] = [*(draft.status.get("history") or []), entry][-KEPT:]


def free_is_used_up(draft: Draft) -> bool:
    """Whether a failure now would be one too many to be free of charge."""
    row = _row(draft.status)
    if row and not _belongs(draft.now, _checkpoint_step(draft.status), row[-1]):
        row = []
    return sum(1 for entry in row if entry.get("free")) >= FREE_IN_A_ROW


def pause_s(status: Manifest) -> float:
    """Seconds between the end of a gang and the start of the next: 0, 1, 2, 4, ... 60 within a row."""
    length = len(_row(status))
    return 0.0 if length < 2 else min(LONGEST_S, 2.0 ** (length - 2))


def hold_s(draft: Draft) -> float:
    """Seconds for which the pods of the present generation are not to be created yet; 0 where it is no restart."""
    history = draft.status.get("history") or []
    if not history or int(history[-1]["generation"]) != draft.generation - 1:
        return 0.0
    ended_at = moments.unix(history[-1].get("time")) or 0.0
    return max(0.0, ended_at + pause_s(draft.status) - draft.now)


def _row(status: Manifest) -> list[Manifest]:
    """The newest restarts that followed each other without progress, oldest first; a resume begins anew."""
    begun = moments.unix(status.get("startTime")) or 0.0
    row: list[Manifest] = []
    for entry in reversed(status.get("history") or []):
        at = moments.unix(entry.get("time")) or 0.0
        if at < begun:
            break
        if row and not _belongs(moments.unix(row[0].get("time")) or 0.0, int(row[0].get("checkpointStep") or 0), entry):
            break
        row.insert(0, entry)
    return row


def _belongs(at: float, checkpoint_step: int, before: Manifest) -> bool:
    """Whether a failure `at` this time follows the one `before` without progress in between."""
    close = at - (moments.unix(before.get("time")) or 0.0) < STEADY_S
    return close and checkpoint_step <= int(before.get("checkpointStep") or 0)


def _checkpoint_step(status: Manifest) -> int:
    return int((status.get("progress") or {}).get("checkpointStep") or 0)
