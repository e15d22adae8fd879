"""Every error a user can meet, and the exit codes that go with them.

    PlatformError                 message + hint, printed without a traceback
    ├── UserError        exit 2   your input is wrong: a flag, a field, a file
    │   ├── SpecError    exit 2   a field of a spec: carries file, line and field path
    │   └── DataError    exit 65  your pictures are wrong: unreadable, one class, ...
    ├── EnvironmentProblem exit 3 the machine is wrong: port in use, no Java, no server there
    ├── RunFailed        exit 1   the run itself failed
    ├── TimedOut         exit 124 it has not happened within the time that was given
    └── PeerLost         exit 200 another rank is gone: this one is a victim

Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Exit codes of a training process tell the controller what to do: 1-127 permanent, >= 128 retryable.
EXIT_OK = 0
EXIT_RUN_FAILED = 1
EXIT_USER = 2
EXIT_ENVIRONMENT = 3
EXIT_DATA = 65  # EX_DATAERR of sysexits.h
EXIT_TIMEOUT = 124  # as timeout(1)
EXIT_HANGUP = 129  # the terminal was closed
EXIT_INTERRUPTED = 130  # Ctrl-C
EXIT_SIGTERM = 143  # checkpointed on SIGTERM: retry, nothing is lost
EXIT_PEER_LOST = 200  # lost contact with another rank: a victim, never the cause
EXIT_STALLED = 201  # made no step for too long: ended by its node's agent


class PlatformError(Exception):
    """An error with a sentence for the user. `hint` says what to do next."""

    exit_code: int = EXIT_RUN_FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class UserError(PlatformError):
    """The user's input is wrong."""

    exit_code = EXIT_USER


class SpecError(UserError):
    """A field of a spec is wrong; the message begins with `file:line: field.path:` as far as these are known."""


class DataError(UserError):
    """The data set is wrong; a training process ends with 65, which the controller does not retry."""

    exit_code = EXIT_DATA


class EnvironmentProblem(PlatformError):
    """This machine or cluster lacks something; trying again later or elsewhere may work."""

    exit_code = EXIT_ENVIRONMENT


class RunFailed(PlatformError):
    """A run ended in failure."""

    exit_code = EXIT_RUN_FAILED


class TimedOut(PlatformError):
    """What was waited for has not happened within the time that was given."""

    exit_code = EXIT_TIMEOUT


def not_installed(package: str, extra: str) -> EnvironmentProblem:
    """What to say where a package of an extra is missing."""
    return EnvironmentProblem(
        f"{package} is not installed here, and this needs it", hint=f"pip install 'trainserve[{extra}]'"
    )


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The most alike of `known`, for "did you mean", or None where nothing is alike."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


class PeerLost(PlatformError):
    """Another rank of the job is gone; the cause is there, not here."""

    exit_code = EXIT_PEER_LOST
