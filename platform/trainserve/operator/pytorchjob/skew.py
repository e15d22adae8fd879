"""Jobs that a command of another version than this operator's has made.

The version stands in an annotation; jobs without one are users' own, and their images are none of our business. Within
a minor version everything fits. Across minor versions a job works, and is told of. Across major versions spec, exit
codes and termination messages may mean something else: such a job is refused before anything of it has begun. One that
has begun goes on, so that an upgrade of the operator ends nobody's training.
"""

from __future__ import annotations

import re

from trainserve import __version__
from trainserve.kube import names
from trainserve.operator.pytorchjob import conditions
from trainserve.operator.pytorchjob.draft import Draft

_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})(?![0-9])")
_LONGEST_TOLD = 40  # letters: an annotation may hold anything


def version_of(draft: Draft) -> str | None:
    """Which version of the command made the job; None of one that says nothing."""
    version: str | None = (draft.job["metadata"].get("annotations") or {}).get(names.ANNOTATION_VERSION)
    return version


def is_refused(draft: Draft, own: str = __version__) -> bool:
    """Whether it is of another major version than `own`, and nothing of it has begun."""
    if conditions.is_listed(draft.status, names.CREATED):
        return False
    theirs = _parse(version_of(draft))
    return theirs is not None and theirs[0] != _known(own)[0]


def refuse(draft: Draft, own: str = __version__) -> None:
    """The end of the job: Failed, with what to do."""
    major, minor = _known(own)
    problem = (
        f"trainserve {_told(version_of(draft))} made it, and this operator is {own}: another major version. Install "
        f"trainserve {major}.{minor} and train again, or have the operator brought to the job's version"
    )
    draft.fail(names.REASON_VERSION_SKEW, names.MESSAGE_REFUSED.format(job=draft.name, problem=problem), cause=problem)


def warn(draft: Draft, own: str = __version__) -> None:
    """A condition while the versions differ by a minor one or more, and an event when that is new."""
    message = _difference(version_of(draft), own)
    if message is None:
        conditions.remove(draft.status, names.VERSION_SKEW)
        return
    text = names.MESSAGE_VERSION_SKEW.format(job=draft.name, difference=message)
    draft.condition(names.VERSION_SKEW, names.REASON_VERSION_SKEW, text, "Warning")
    conditions.to_front(draft.status, names.VERSION_SKEW)


def _difference(version: str | None, own: str) -> str | None:
    if version is None:
        return None
    theirs = _parse(version)
    if theirs is None:
        return f"its version is given as {_told(version)}, which is none such as {own}"
    if theirs == _known(own):
        return None
    what = "minor" if theirs[0] == _known(own)[0] else "major"
    return f"trainserve {_told(version)} made it, and this operator is {own}: another {what} version"


def _parse(version: str | None) -> tuple[int, int] | None:
    """Major and minor of `1.2`, `1.2.3`, `1.2.0.dev1`, `1.2rc1`; None where there are none."""
    found = _VERSION.match(version) if isinstance(version, str) else None
    return (int(found[1]), int(found[2])) if found else None


def _known(own: str) -> tuple[int, int]:
    parsed = _parse(own)
    assert parsed is not None, f"{own!r} is no version of this package"
    return parsed


def _told(version: str | None) -> str:
    text = str(version)
    shown = text if len(text) <= _LONGEST_TOLD else f"{text[:_LONGEST_TOLD]}..."
    return shown if _parse(version) is not None and shown.isprintable() else repr(shown)
