"""`/metrics` for Prometheus: requests by model and status, seconds, queue, restarts."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from trainserve.serve.native.model import Model

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Of one server; a registry of its own, so that two in one process do not meet."""

    CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "trainserve_requests", "Requests by status.", ["model", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "trainserve_request_seconds",
            "Seconds from a request's head to its answer, of those that were answered.",
            ["model"],
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._waiting = Gauge("trainserve_waiting_requests", "In the queue.", ["model"], registry=self._registry)
        self._ready = Gauge("trainserve_model_ready", "1 while it answers.", ["model"], registry=self._registry)
        self._restarts = Gauge(
            "trainserve_model_restarts", "New starts of its process.", ["model"], registry=self._registry
        )

    def count(self, model: str, status: int, seconds: float) -> None:
        """One request has ended."""
        self._requests.labels(model, str(status)).inc()
        if status == HTTPStatus.OK:
            self._seconds.labels(model).observe(seconds)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        for name, model in self._models.items():
            self._waiting.labels(name).set(model.waiting)
            self._ready.labels(name).set(int(model.ready))
            self._restarts.labels(name).set(model.restarts)
        return generate_latest(self._registry)
