"""What the operator counts of itself, for Prometheus.

Five counters are called and labelled as the Training Operator's, so that its dashboards and alerts go on working:
`training_operator_jobs_{created,deleted,successful,failed,restarted}_total`. They follow from status writes that have
succeeded, so a job is counted once, whichever operator works on it and however often one starts anew; only what is
deleted is counted from what is seen, by the one that works.

Namespaces come and go: one without jobs in which nothing was counted for an hour has no series any more.
"""

from __future__ import annotations

import logging
import platform
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trainserve import __version__
from trainserve.kube import names, replicas
from trainserve.kube.cluster import Manifest
from trainserve.kube.moments import unix
from trainserve.kube.names import Kind
from trainserve.observe import prometheus
from trainserve.operator.pytorchjob import conditions
from trainserve.operator.telemetry import Telemetry

log = logging.getLogger(__name__)

FRAMEWORK = "pytorch"
_PASS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_REQUEST_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
_START_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)
FORGET_AFTER_S = 3600.0  # many scrapes: what was counted last has been read
_SWEEP_EVERY_S = 600.0  # looking for such namespaces means looking at every job

_Series = TypeVar("_Series", Counter, Histogram)
_Any = TypeVar("_Any", Counter, Histogram, Gauge)

_WAITS = frozenset({names.CREATED, names.PENDING, names.RESTARTING})  # states of jobs that want to run and do not

# Answers that say nothing is wrong: 404 and 409 are what a controller that races with others is told.
_EXPECTED = frozenset({404, 409, 410})


class Metrics(Telemetry):
    """All metrics, in a registry of their own; `page` is what a scrape gets. `wall` gives unix seconds."""

    content_type = prometheus_client.CONTENT_TYPE_LATEST

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._jobs: Callable[[], Iterable[Manifest]] = tuple
        self._counted_at: dict[str, float] = {}  # of each namespace that has series, by `wall`
        self._series: dict[str, set[tuple[Counter | Histogram, tuple[str, ...]]]] = {}  # and which: the other labels
        self._sweep_at = 0.0
        self.registry = registry = CollectorRegistry()
        # Else "…_created" stands beside each counter: half of the page, used by nobody.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        upstream = {
            "created": prometheus.JOBS_CREATED,
            "deleted": prometheus.JOBS_DELETED,
            "successful": prometheus.JOBS_SUCCESSFUL,
            "failed": prometheus.JOBS_FAILED,
            "restarted": prometheus.JOBS_RESTARTED,
        }
        self._upstream = {what: _made(Counter, metric, registry) for what, metric in upstream.items()}
        self._restarts = _made(Counter, prometheus.GANG_RESTARTS, registry)
        self._start = _made(Histogram, prometheus.JOB_START, registry, buckets=_START_S)
        self._passes = _made(Histogram, prometheus.RECONCILE, registry, buckets=_PASS_S)
        for result in ("success", "conflict", "error", "bug"):  # there from the start, for rates and alerts
            self._passes.labels(result)
        self._requests = _made(Counter, prometheus.API_REQUESTS, registry)
        self._errors = _made(Counter, prometheus.API_ERRORS, registry)
        self._request_s = _made(Histogram, prometheus.API_REQUEST_S, registry, buckets=_REQUEST_S)
        self._leader = _made(Gauge, prometheus.LEADER, registry)
        build = _made(Gauge, prometheus.BUILD_INFO, registry)
        build.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=registry)

    def page(self) -> bytes:
        """What a scrape gets. A counter that appears with its first count looks to a rate as if nothing had happened:
        each namespace with a job has upstream's five before.
        """
        for namespace in {job["metadata"]["namespace"] for job in self._jobs()}:
            for counter in self._upstream.values():
                self._of(namespace, counter, FRAMEWORK)
        return prometheus_client.generate_latest(self.registry)

    def watch(
        self,
        *,
        jobs: Callable[[], Iterable[Manifest]],
        depth: Callable[[], int],
        oldest_s: Callable[[], float],
        longest_pass_s: Callable[[], float],
        leading: Callable[[], bool],
        lag_s: Callable[[], float],
    ) -> None:
        """Where each scrape looks."""
        self._jobs = jobs
        self._leader.set_function(lambda: float(leading()))
        gauges: tuple[tuple[prometheus.Metric, Callable[[], float]], ...] = (
            (prometheus.QUEUE_DEPTH, lambda: float(depth())),
            (prometheus.QUEUE_OLDEST, oldest_s),
            (prometheus.LONGEST_PASS, longest_pass_s),
            (prometheus.LOOP_LAG, lag_s),
        )
        for metric, read in gauges:
            _made(Gauge, metric, self.registry).set_function(read)
        self.registry.register(_Jobs(jobs, self._wall))

    def request(self, verb: str, kind: Kind, status: int, seconds: float) -> None:
        """A hook of `kube.client.connect`."""
        self._requests.labels(verb, kind.plural, str(status)).inc()
        if (status == 0 or status >= 400) and status not in _EXPECTED:
            self._errors.labels(verb, kind.plural).inc()
        self._request_s.labels(verb).observe(seconds)

    def job_changed(self, before: Manifest | None, after: Manifest | None) -> None:
        if before is not None and after is None:
            self._count("deleted", before["metadata"]["namespace"])

    def status_written(self, job: Manifest, before: Manifest, after: Manifest) -> None:
        namespace = job["metadata"]["namespace"]
        if conditions.is_listed(after, names.CREATED) and not conditions.is_listed(before, names.CREATED):
            self._count("created", namespace)
        for condition, what in ((names.SUCCEEDED, "successful"), (names.FAILED, "failed")):
            if conditions.is_true(after, condition) and not conditions.is_true(before, condition):
                self._count(what, namespace)
        self._restarted(namespace, before, after)
        self._started(namespace, job, before, after)

    def pass_ended(self, result: str, seconds: float) -> None:
        self._passes.labels(result).observe(seconds)

    def _count(self, what: str, namespace: str, times: int = 1) -> None:
        self._of(namespace, self._upstream[what], FRAMEWORK).inc(times)

    def _of(self, namespace: str, metric: _Series, *labels: str) -> _Series:
        """The namespace's series of `metric`, whose first label it is."""
        now = self._wall()
        if namespace not in self._series and now >= self._sweep_at:
            self._forget_namespaces(now)
            self._sweep_at = now + _SWEEP_EVERY_S
        self._counted_at[namespace] = now
        self._series.setdefault(namespace, set()).add((metric, labels))
        return metric.labels(namespace, *labels)

    def _forget_namespaces(self, now: float) -> None:
        with_jobs = {job["metadata"]["namespace"] for job in self._jobs()}
        old = [name for name, at in self._counted_at.items() if at < now - FORGET_AFTER_S and name not in with_jobs]
        for namespace in old:
            del self._counted_at[namespace]
            for metric, labels in self._series.pop(namespace):
                metric.remove(namespace, *labels)

    def _restarted(self, namespace: str, before: Manifest, after: Manifest) -> None:
        """Gangs that ended are in the history; pods that are restarted one by one are counted in `podRestarts`."""
        known = {entry["generation"] for entry in before.get("history") or []}
        new = [entry for entry in after.get("history") or [] if entry["generation"] not in known]
        for entry in new:
            free = bool(entry.get("free"))
            self._of(namespace, self._restarts, entry.get("reason") or "Unknown", str(free).lower()).inc()
        singly = 0 if new else int(after.get("restarts") or 0) - int(before.get("restarts") or 0)
        self._count("restarted", namespace, len(new) + max(0, singly))

    def _started(self, namespace: str, job: Manifest, before: Manifest, after: Manifest) -> None:
        if after.get("history") or before.get("history"):
            return  # a later gang's start says more of what came before it
        wanted = replicas.total_replicas(job)
        if _active(before) < wanted <= _active(after):
            resumed = conditions.is_listed(after, names.SUSPENDED)
            since = unix(after.get("startTime")) if resumed else unix(job["metadata"].get("creationTimestamp"))
            if since is not None:
                self._of(namespace, self._start).observe(max(0.0, self._wall() - since))


def _active(status: Manifest) -> int:
    return sum(int(counts.get("active") or 0) for counts in (status.get("replicaStatuses") or {}).values())


def _made(kind: type[_Any], metric: prometheus.Metric, registry: CollectorRegistry, **more: Any) -> _Any:
    return kind(metric.name, metric.meaning, metric.labels, registry=registry, **more)


class _Jobs(Collector):
    """How many jobs there are in each state, and since when the oldest waits, looked at in each scrape."""

    def __init__(self, jobs: Callable[[], Iterable[Manifest]], wall: Callable[[], float]) -> None:
        self._jobs = jobs
        self._wall = wall

    def collect(self) -> Iterator[Metric]:
        found: Tally[tuple[str, str]] = Tally()
        longest: dict[str, float] = {}
        now = self._wall()
        for job in self._jobs():
            namespace, state = job["metadata"]["namespace"], _state(job)
            found[namespace, state] += 1
            waited = now - (_since(job) or now) if state in _WAITS else 0.0
            longest[namespace] = max(longest.get(namespace, 0.0), waited)
        states = _family(prometheus.JOBS)
        for key, count in sorted(found.items()):
            states.add_metric(key, count)
        yield states
        pending = _family(prometheus.OLDEST_PENDING)
        for namespace, seconds in sorted(longest.items()):
            pending.add_metric((namespace,), seconds)
        yield pending


def _family(metric: prometheus.Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)


def _state(job: Manifest) -> str:
    listed = (job.get("status") or {}).get("conditions") or []
    return str(listed[-1]["type"]) if listed else names.PENDING


def _since(job: Manifest) -> float | None:
    """When the job came into its state, in unix seconds."""
    listed = (job.get("status") or {}).get("conditions") or []
    entered = unix(listed[-1].get("lastTransitionTime")) if listed else None
    return entered if entered is not None else unix(job["metadata"].get("creationTimestamp"))
