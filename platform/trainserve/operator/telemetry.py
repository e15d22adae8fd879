"""What the controller tells of its work. Nothing is kept here; `metrics.Metrics` counts it."""

from __future__ import annotations

from trainserve.kube.cluster import Manifest


class Telemetry:
    """Told of, and keeping nothing. The methods must not block or raise."""

    def job_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        """A job was seen for the first time (`before` is None), has changed, or is gone (`after` is None).

        Not told where another operator leads: it tells.
        """

    def status_written(self, job: Manifest, before: Manifest, after: Manifest) -> None:
        """The job's status was `before`, and is `after` by a write of ours that has succeeded."""

    def pass_ended(self, result: str, seconds: float) -> None:
        """One pass over one job has ended: "success", "conflict", "error" (tried again) or "bug"."""
