"""An API server that does not answer, or not to us: the errors, their words, and their being told once.

Nobody is flooded: a controller with twenty watches and a hundred jobs logs two lines for an outage, begin and end.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from trainserve.errors import EnvironmentProblem
from trainserve.kube.cluster import ApiError

log = logging.getLogger(__name__)

RUNNING = "is it running?"


@dataclass(frozen=True)
class Origin:
    """Where what a connection is made with stands: field and file of the address, the CA and the credentials."""

    server: str
    authority: str
    credentials: str


class NoAnswer(ConnectionError):
    """There is no answer of an API server; `hint` says what may help. A client that tells its outages has told it."""

    def __init__(self, message: str, hint: str = RUNNING) -> None:
        super().__init__(message)
        self.hint = hint


class Unauthorized(ApiError):
    """401: the credentials are not, or no longer, taken. A client that tells its outages has told it."""

    status, reason = 401, "Unauthorized"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Outage:
    """Tells once that the server does not answer, or not to us, and once that it does again, whoever asks it meanwhile.

    Times are of one clock, in seconds. Until `loud` is set it tells nothing.
    """

    def __init__(self) -> None:
        self.loud = False
        self._since: float | None = None
        self._answered_at = float("-inf")
        self._hint = ""

    def failed(self, error: NoAnswer | Unauthorized, began: float, now: float) -> None:
        """Of a request that began then. One that failed alone, while others were answered, is told by itself."""
        if not self.loud:
            return
        if began < self._answered_at:
            log.warning("%s", error)
        elif self._since is None or error.hint != self._hint:
            self._since, self._hint = now if self._since is None else self._since, error.hint
            log.warning("the API server does not answer us: %s. hint: %s; asked again until it does", error, error.hint)

    def answered(self, now: float) -> None:
        self._answered_at = now
        if self._since is not None:
            log.warning("the API server answers again, after %.0f s", now - self._since)
            self._since = None


def problem(error: ApiError | OSError, hint: str | None = None) -> EnvironmentProblem:
    """The end of what cannot wait for the server. `hint`: for what the server says no to."""
    if isinstance(error, Unauthorized):
        return EnvironmentProblem(error.message, hint=error.hint)
    if isinstance(error, ApiError):
        return EnvironmentProblem(f"the API server says no: {error.message}", hint=hint)
    said = str(error) or "no answer in time"
    return EnvironmentProblem(f"the API server does not answer: {said}", hint=getattr(error, "hint", RUNNING))


def level(error: ApiError | OSError) -> int:
    """Of the log's line about one request that failed: what is told once for all of them is not told again."""
    return logging.DEBUG if isinstance(error, (NoAnswer, Unauthorized)) else logging.WARNING
