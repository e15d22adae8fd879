"""Points in time: RFC 3339 in objects, unix seconds here."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(seconds: float) -> str:
    """Unix seconds as Kubernetes' metav1.Time: UTC, whole seconds, rounded down."""
    return datetime.fromtimestamp(int(seconds), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(seconds: float) -> str:
    """Unix seconds as metav1.MicroTime, which Leases have: UTC, microseconds."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def unix(text: str | None) -> float | None:
    """Unix seconds of a metav1.Time or MicroTime; None of None and of what is no time."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
