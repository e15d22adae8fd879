"""How long an API server may be away from somebody who follows a run: told once, borne up to a bound."""

from __future__ import annotations

import time
from collections.abc import Callable

from trainserve.kube.names import POD_LOG, Kind
from trainserve.observe.words import duration

LONGEST_S = 120.0  # a control plane that is upgraded is back by then


class Patience:
    """Hears of every request's status (`kube.client.RequestHook`), and says when the server is away and back.

    `is_over` after `longest_s` without any answer; before that whoever asks goes on asking.
    """

    def __init__(
        self,
        notice: Callable[[str], object],
        *,
        longest_s: float = LONGEST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notice = notice
        self._longest_s = longest_s
        self._clock = clock
        self._since: float | None = None
        self._told = False

    def answered(self, verb: str, kind: Kind, status: int, seconds: float) -> None:  # noqa: ARG002  the hook's signature
        """Of each request; a status of 0 is no answer, and 401 and 5xx are none that helps, but of a pod's node."""
        if (0 < status < 500 and status != 401) or (status and kind == POD_LOG):
            if self._since is not None and self._told:
                self._notice(f"the API server answers again, after {duration(self._clock() - self._since)}")
            self._since, self._told = None, False
        elif self._since is None:
            self._since = self._clock()

    @property
    def away(self) -> bool:
        """Whether nothing was answered since at least one request."""
        return self._since is not None

    def tell(self) -> None:
        """Say once that the server is away; of a single request that failed nothing is said."""
        if self._since is not None and not self._told and self._clock() - self._since >= 1.0:
            self._told = True
            self._notice(f"the API server does not answer: asked again for {duration(self._longest_s)}")

    @property
    def is_over(self) -> bool:
        return self._since is not None and self._clock() - self._since >= self._longest_s
