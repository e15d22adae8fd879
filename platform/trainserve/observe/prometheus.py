"""Every metric that a training pod and the operator answer a scrape with: its name is spelt here alone. Pure.

A training pod's have no labels: the scrape adds `namespace` and `job`, and one pod a job answers. The operator's
have `job_namespace`, for a scrape's own `namespace` is where the operator runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Metric:
    """`name` is what a query says; a histogram has the series `<name>_bucket`, `_sum` and `_count`."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()

    def series(self) -> tuple[str, ...]:
        """The names that a query may use."""
        return (
            tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count")) if self.is_histogram else (self.name,)
        )

    @property
    def is_histogram(self) -> bool:
        return self.kind == "histogram"


def _training(name: str, meaning: str) -> Metric:
    return Metric(f"trainserve_training_{name}", "gauge", meaning)


GENERATION = _training("generation", "Start of the gang, from 1: every restart and resume counts one more.")
START_TIME = _training("start_timestamp_seconds", "When this start of the gang began to train, in unix seconds.")
PROCESSES = _training("processes", "Processes that train, over all nodes.")
EPOCH = _training("epoch", "The present epoch, from 1.")
EPOCHS = _training("epochs", "Epochs in all.")
STEP = _training("step", "Optimizer steps done, over all epochs.")
STEPS = _training("steps", "Steps in all.")
LOSS = _training("loss", "Loss of the newest training step told.")
LEARNING_RATE = _training("learning_rate", "Learning rate of the newest training step told.")
TRAIN_LOSS = _training("epoch_train_loss", "Mean loss of the pictures trained on, in the newest whole epoch.")
TRAIN_TOP1 = _training(
    "epoch_train_top1_ratio", "Share of the pictures trained on that were answered rightly, as they were trained on."
)
VAL_LOSS = _training("epoch_val_loss", "Mean loss of the validation pictures, after the newest whole epoch.")
TOP1 = _training("top1_ratio", "Share of the validation pictures answered rightly, 0 to 1.")
TOP5 = _training("top5_ratio", "Share of the validation pictures whose class is among the best five, 0 to 1.")
IMAGES_PER_SECOND = _training("images_per_second", "Pictures a second, over the whole job.")
ETA = _training("eta_seconds", "Seconds until the end of training.")
CHECKPOINT_STEP = _training("checkpoint_step", "Step of the newest checkpoint: a restart goes on from there.")
CHECKPOINT_TIME = _training(
    "checkpoint_timestamp_seconds", "When this start of the gang wrote its newest checkpoint, in unix seconds."
)
STALLED = _training("stalled", "1 while no step has come for half the time after which the rank is ended for it.")
GPU_USED = _training("gpu_memory_used_bytes", "Memory of rank 0's GPU that tensors hold.")
GPU_PEAK = _training("gpu_memory_peak_bytes", "Most memory of rank 0's GPU that tensors ever held.")
GPU_SIZE = _training("gpu_memory_size_bytes", "Memory that rank 0's GPU has.")

TRAINING = (
    GENERATION,
    START_TIME,
    PROCESSES,
    EPOCH,
    EPOCHS,
    STEP,
    STEPS,
    LOSS,
    LEARNING_RATE,
    TRAIN_LOSS,
    TRAIN_TOP1,
    VAL_LOSS,
    TOP1,
    TOP5,
    IMAGES_PER_SECOND,
    ETA,
    CHECKPOINT_STEP,
    CHECKPOINT_TIME,
    STALLED,
    GPU_USED,
    GPU_PEAK,
    GPU_SIZE,
)


def _operator(
    name: str, kind: Literal["gauge", "counter", "histogram"], meaning: str, labels: tuple[str, ...] = ()
) -> Metric:
    return Metric(f"trainserve_operator_{name}", kind, meaning, labels)


# Kubeflow's Training Operator calls and labels them so: its dashboards and alerts go on working.
UPSTREAM_LABELS = ("job_namespace", "framework")
JOBS_CREATED = Metric("training_operator_jobs_created_total", "counter", "Jobs created.", UPSTREAM_LABELS)
JOBS_DELETED = Metric("training_operator_jobs_deleted_total", "counter", "Jobs deleted.", UPSTREAM_LABELS)
JOBS_SUCCESSFUL = Metric("training_operator_jobs_successful_total", "counter", "Jobs successful.", UPSTREAM_LABELS)
JOBS_FAILED = Metric("training_operator_jobs_failed_total", "counter", "Jobs failed.", UPSTREAM_LABELS)
JOBS_RESTARTED = Metric("training_operator_jobs_restarted_total", "counter", "Jobs restarted.", UPSTREAM_LABELS)

JOBS = _operator("jobs", "gauge", "Jobs by state: their last condition.", ("job_namespace", "state"))
OLDEST_PENDING = _operator(
    "oldest_pending_seconds",
    "gauge",
    "For how long the job that has waited longest has had no pods that all run: Created, Pending or Restarting.",
    ("job_namespace",),
)
JOB_START = _operator(
    "job_start_seconds",
    "histogram",
    "From a job's creation (or resumption) until all its pods ran for the first time.",
    ("job_namespace",),
)
GANG_RESTARTS = _operator(
    "gang_restarts_total",
    "counter",
    "Restarts of a whole gang, by what brought them about; free ones do not count against backoffLimit.",
    ("job_namespace", "cause", "free"),
)
RECONCILE = _operator(
    "reconcile_seconds",
    "histogram",
    "Passes over one job, by how they ended: success, conflict, error (tried again), bug.",
    ("result",),
)
QUEUE_DEPTH = _operator("queue_depth", "gauge", "Jobs that wait for a worker.")
QUEUE_OLDEST = _operator("queue_oldest_seconds", "gauge", "How long the first of them has waited.")
LONGEST_PASS = _operator("longest_pass_seconds", "gauge", "Age of the oldest pass in progress.")
LOOP_LAG = _operator(
    "event_loop_lag_seconds", "gauge", "How late the event loop was, at worst, in the last ten seconds."
)
API_REQUESTS = _operator(
    "api_requests_total",
    "counter",
    "Requests to the API server; code 0: it gave no answer.",
    ("verb", "kind", "code"),
)
API_ERRORS = _operator(
    "api_errors_total",
    "counter",
    "Requests that failed, other than by what is normal in a race (404, 409, 410).",
    ("verb", "kind"),
)
API_REQUEST_S = _operator("api_request_seconds", "histogram", "Until an answer of the API server began.", ("verb",))
LEADER = _operator("leader", "gauge", "1 in the operator that works, 0 in one that waits.")
BUILD_INFO = _operator("build_info", "gauge", "Always 1; the versions are in the labels.", ("version", "python"))

OPERATOR = (
    JOBS,
    OLDEST_PENDING,
    JOB_START,
    GANG_RESTARTS,
    RECONCILE,
    QUEUE_DEPTH,
    QUEUE_OLDEST,
    LONGEST_PASS,
    LOOP_LAG,
    API_REQUESTS,
    API_ERRORS,
    API_REQUEST_S,
    LEADER,
    BUILD_INFO,
)
UPSTREAM = (JOBS_CREATED, JOBS_DELETED, JOBS_SUCCESSFUL, JOBS_FAILED, JOBS_RESTARTED)
# Of the operator's process, as Prometheus' client library calls them: no names of ours.
PROCESS_CPU = Metric("process_cpu_seconds_total", "counter", "Processor time, in s.")
PROCESS_MEMORY = Metric("process_resident_memory_bytes", "gauge", "Memory that it holds.")
PROCESS_FILES = Metric("process_open_fds", "gauge", "Files and connections that it has open.")
PROCESS = (PROCESS_CPU, PROCESS_MEMORY, PROCESS_FILES)
