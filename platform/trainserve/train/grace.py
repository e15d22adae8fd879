"""Whether a checkpoint fits into the time that a pod has to end, as far as those written so far tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainserve.errors import SpecError
from trainserve.kube.names import ENV_GRACE

SHARE = 0.5  # of the time; the rest is for the step in progress, for a busy disk, and for sending it to a bucket


@dataclass
class Grace:
    """`seconds` between SIGTERM and SIGKILL (terminationGracePeriodSeconds); None where nobody has said."""

    seconds: float | None = None
    _is_told: bool = False

    def warning(self, what: str, took_s: float) -> str | None:
        """What to say of `what`, a checkpoint or its way to a bucket, that took so long; once."""
        if self.seconds is None or self._is_told or took_s <= SHARE * self.seconds:
            return None
        self._is_told = True
        verdict = "it does not fit" if took_s > self.seconds else "it may not fit"
        return (
            f"{what} took {took_s:.1f} s, and a pod that is stopped has {self.seconds:g} s for the step in progress "
            f"and a checkpoint: {verdict}, and a stop then costs the steps since the last whole one; hint: a longer "
            "terminationGracePeriodSeconds in spec.pod.overlay, a faster output, or a checkpoint more often "
            "(train.checkpointEverySteps)"
        )


def of_environment(env: Mapping[str, str]) -> Grace:
    """The time that the pod's env tells. Raises SpecError."""
    text = env.get(ENV_GRACE)
    if text is None:
        return Grace()
    try:
        return Grace(float(text))
    except ValueError:
        raise SpecError(
            f"{ENV_GRACE}: {text!r} is not allowed; allowed: seconds",
            hint="it is the pod's terminationGracePeriodSeconds",
        ) from None
