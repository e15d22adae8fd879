"""Jobs that a command of another version than this operator's has made.

The version stands in an annotation; jobs without one are users' own, and their images are none of our business. Within
a minor version everything fits. Across minor versions a job works, and is told of. Across major versions spec, exit
codes and termination messages may mean something else: such a job is refused before anything of it has begun. One that
has begun goes on, so that an upgrade of the operator ends nobody's training.
"""

from __future__ import annotations

from trainserve import __version__
from trainserve.kube import names, versions
from trainserve.operator.pytorchjob import conditions
from trainserve.operator.pytorchjob.draft import Draft


def version_of(draft: Draft) -> str | None:
    """Which version of the command made the job; None of one that says nothing."""
    version: str | None = (draft.job["metadata"].get("annotations") or {}).get(names.ANNOTATION_VERSION)
    return version


def is_refused(draft: Draft, own: str = __version__) -> bool:
    """Whether it is of another major version than `own`, and nothing of it has begun."""
    if conditions.is_listed(draft.status, names.CREATED):
        return False
    theirs = versions.parse(version_of(draft))
    return theirs is not None and theirs[0] != _known(own)[0]


def refuse(draft: Draft, own: str = __version__) -> None:
    """The end of the job: Failed, with what to do."""
    major, minor = _known(own)
    problem = (
        f"trainserve {versions.told(version_of(draft))} made it, and this operator is {own}: another major "
        f"version. Install trainserve {major}.{minor} and train again, or have "
        "the operator brought to the job's version"
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
    theirs = versions.parse(version)
    if theirs is None:
        return f"its version is given as {versions.told(version)}, which is none such as {own}"
    if theirs == _known(own):
        return None
    what = "minor" if theirs[0] == _known(own)[0] else "major"
    return f"trainserve {versions.told(version)} made it, and this operator is {own}: another {what} version"


def _known(own: str) -> tuple[int, int]:
    parsed = versions.parse(own)
    assert parsed is not None, f"{own!r} is no version of this package"
    return parsed
