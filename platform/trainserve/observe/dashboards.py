"""The two dashboards: how jobs train, and how the operator works. `files` is what the chart holds of them. Pure.

They need what a scrape gives and no recording rule, so that they work where the rules are not installed.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainserve.observe import prometheus as p
from trainserve.observe.grafana import Dashboard, Panel, Query, Row, Variable
from trainserve.observe.prometheus import Metric

RATE = "$__rate_interval"
_JOB = 'namespace=~"$namespace", job=~"$job"'
_OPERATOR = 'namespace=~"$namespace"'
_OF_JOBS = f'{_OPERATOR}, job_namespace=~"$job_namespace"'
_RED = (("red", 1.0),)


def _now(metric: Metric) -> str:
    """Of each job: the pod of a new gang has another address, and the line goes on."""
    return f"max by (namespace, job) ({metric.name}{{{_JOB}}})"


def _of_job(title: str, metric: Metric, unit: str = "short", **more: object) -> Panel:
    return _jobs_panel(title, ((_now(metric), ""),), unit, **more)


def _jobs_panel(title: str, queries: tuple[tuple[str, str], ...], unit: str = "short", **more: object) -> Panel:
    told = tuple(Query(expr, "{{namespace}}/{{job}}" + (f" {what}" if what else "")) for expr, what in queries)
    return Panel(title, told, unit, **more)  # type: ignore[arg-type]


_UNSAVED = f"{_now(p.STEP)} - ({_now(p.CHECKPOINT_STEP)} or 0 * {_now(p.STEP)})"
_SAVED_AT = f"{p.CHECKPOINT_TIME.name}{{{_JOB}}} or {p.START_TIME.name}{{{_JOB}}}"
_SINCE_SAVED = f"time() - max by (namespace, job) ({_SAVED_AT})"
_EACH_S = f"{_now(p.IMAGES_PER_SECOND)} / {_now(p.PROCESSES)}"

TRAINING = Dashboard(
    uid="trainserve-training",
    title="trainserve / training",
    meaning="What rank 0 of each job tells: one pod a job is scraped, on port 9464.",
    variables=(
        Variable("namespace", "Namespace", p.GENERATION.name, "namespace"),
        Variable("job", "Job", f'{p.GENERATION.name}{{namespace=~"$namespace"}}', "job"),
    ),
    rows=(
        Row(
            "Now",
            (
                _jobs_panel("Done", ((f"{_now(p.STEP)} / {_now(p.STEPS)}", ""),), "percentunit", kind="bargauge",
                            least=0, most=1, meaning="Steps done, of all."),
                _of_job("Time left", p.ETA, "s", kind="stat"),
                _of_job("Top-1", p.TOP1, "percentunit", kind="bargauge", least=0, most=1,
                        meaning="Of the newest validation."),
                _jobs_panel("Restarts", ((f"{_now(p.GENERATION)} - 1", ""),), kind="stat", height=5,
                            steps=(("orange", 1.0), ("red", 5.0)),
                            meaning="Starts of the gang after the first: restarts, resumes, changes of size."),
                _jobs_panel("Unsaved work", ((_SINCE_SAVED, ""),), "s", kind="stat", height=5,
                            steps=(("orange", 3600.0), ("red", 7200.0)),
                            meaning="Since the newest checkpoint of this start, or since it began."),
                _of_job("Ranks that hang", p.STALLED, kind="stat", height=5, steps=_RED,
                        meaning="1 once half of the time is over after which a rank that hangs is ended."),
            ),
        ),
        Row(
            "Quality",
            (
                _of_job("Loss", p.LOSS, meaning="Of single training steps.", width=12),
                _jobs_panel("Loss by epoch", ((_now(p.TRAIN_LOSS), "training"), (_now(p.VAL_LOSS), "validation")),
                            width=12, meaning="Validation rises while training falls: it learns by heart."),
                _jobs_panel("Top-1 by epoch", ((_now(p.TRAIN_TOP1), "training"), (_now(p.TOP1), "validation")),
                            "percentunit", width=12, least=0, most=1,
                            meaning="Training's is of augmented pictures, as the network was while it learnt them."),
                _of_job("Top-5", p.TOP5, "percentunit", width=12, least=0, most=1),
            ),
        ),
        Row(
            "Speed",
            (
                _of_job("Images a second", p.IMAGES_PER_SECOND, least=0, meaning="Over the whole job."),
                _jobs_panel("Images a second and process", ((_EACH_S, ""),), least=0,
                            meaning="Two jobs of different size beside each other."),
                _of_job("Time left", p.ETA, "s", least=0),
                _jobs_panel("Epochs", ((_now(p.EPOCH), "now"), (_now(p.EPOCHS), "of")), least=0),
                _jobs_panel("Steps", ((_now(p.STEP), "done"), (_now(p.STEPS), "of")), least=0),
                _of_job("Learning rate", p.LEARNING_RATE, least=0),
            ),
        ),
        Row(
            "What a restart costs",
            (
                _jobs_panel("Steps since the checkpoint", ((_UNSAVED, ""),), least=0),
                _jobs_panel("Time since the checkpoint", ((_SINCE_SAVED, ""),), "s", least=0),
                _of_job("Start of the gang", p.GENERATION, least=0, meaning="Each step up is a restart or a resume."),
            ),
        ),
        Row(
            "GPU of rank 0",
            (
                _jobs_panel("GPU memory", ((_now(p.GPU_USED), "used"), (_now(p.GPU_PEAK), "peak"),
                                           (_now(p.GPU_SIZE), "size")), "bytes", width=24, least=0,
                            meaning="Empty where training is on processors. The driver sees more than tensors."),
            ),
        ),
    ),
)  # fmt: skip


def _rate(metric: str, by: str, match: str = _OPERATOR) -> str:
    return f"sum by ({by}) (rate({metric}{{{match}}}[{RATE}]))"


def _quantile(share: float, metric: Metric, by: str = "", match: str = _OPERATOR, window: str = RATE) -> str:
    groups = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({groups}) (rate({metric.series()[0]}{{{match}}}[{window}])))"


def _hourly(metric: Metric, match: str = _OF_JOBS) -> str:
    return f"sum by (job_namespace) (increase({metric.name}{{{match}}}[1h]))"


def _worst(metric: Metric, by: str = "pod", match: str = _OPERATOR) -> str:
    return f"max by ({by}) ({metric.name}{{{match}}})"


def _process(expr: str) -> str:
    """Of operators alone: every program with Prometheus' client has these metrics."""
    return f"{expr} and on (namespace, instance) {p.BUILD_INFO.name}{{{_OPERATOR}}}"


_COUNT = p.RECONCILE.series()[2]

OPERATOR = Dashboard(
    uid="trainserve-operator",
    title="trainserve / operator",
    meaning="Jobs as the operator sees them, and whether it keeps up. Counts of jobs are of the operator that leads.",
    variables=(
        Variable("namespace", "Operator in", p.BUILD_INFO.name, "namespace"),
        Variable("job_namespace", "Jobs in", f"{p.JOBS.name}{{{_OPERATOR}}}", "job_namespace"),
    ),
    rows=(
        Row(
            "Now",
            (
                Panel("Leading", (Query(f"sum by (namespace) ({p.LEADER.name}{{{_OPERATOR}}})", "{{namespace}}"),),
                      kind="stat", width=4, height=5, meaning="1: one works, the others wait. 0: none does."),
                Panel("Operators", (Query(f"count by (version) ({p.BUILD_INFO.name}{{{_OPERATOR}}})", "{{version}}"),),
                      kind="stat", width=4, height=5, meaning="Replicas that answer, by version."),
                Panel("Jobs that run",
                      (Query(f'sum(max by (job_namespace) ({p.JOBS.name}{{{_OF_JOBS}, state="Running"}}))'),),
                      kind="stat", width=4, height=5),
                Panel("Longest wait for pods", (Query(_worst(p.OLDEST_PENDING, "job_namespace", _OF_JOBS),
                                                      "{{job_namespace}}"),), "s", kind="stat", width=6, height=5,
                      steps=(("orange", 600.0), ("red", 1800.0)),
                      meaning="Of the job that is Created, Pending or Restarting for longest."),
                Panel("Oldest in the queue", (Query(_worst(p.QUEUE_OLDEST), "{{pod}}"),), "s", kind="stat", width=6,
                      height=5, steps=(("orange", 10.0), ("red", 60.0))),
            ),
        ),
        Row(
            "Jobs",
            (
                Panel("Jobs by state",
                      (Query(f"sum by (state) ({_worst(p.JOBS, 'job_namespace, state', _OF_JOBS)})", "{{state}}"),),
                      least=0, stacked=True),
                Panel("Ended in an hour",
                      tuple(Query(_hourly(metric), "{{job_namespace}} " + what) for metric, what in (
                          (p.JOBS_SUCCESSFUL, "successful"), (p.JOBS_FAILED, "failed"))), least=0),
                Panel("Created and deleted in an hour",
                      tuple(Query(_hourly(metric), "{{job_namespace}} " + what) for metric, what in (
                          (p.JOBS_CREATED, "created"), (p.JOBS_DELETED, "deleted"))), least=0),
                Panel("Restarts in an hour", (Query(_hourly(p.JOBS_RESTARTED), "{{job_namespace}}"),), least=0),
                Panel("Restarts of gangs by cause in an hour",
                      (Query(f"sum by (cause, free) (increase({p.GANG_RESTARTS.name}{{{_OF_JOBS}}}[1h]))",
                             "{{cause}}, free: {{free}}"),),
                      least=0, meaning="Free ones do not count against backoffLimit: somebody took the pods away."),
                Panel("Until all pods run",
                      tuple(Query(_quantile(share, p.JOB_START, match=_OF_JOBS, window="1h"), what)
                            for share, what in ((0.5, "median"), (0.9, "nine of ten"))), "s", least=0,
                      meaning="From a job's creation or resumption, over an hour."),
            ),
        ),
        Row(
            "Passes over jobs",
            (
                Panel("Passes a second", (Query(_rate(_COUNT, "result"), "{{result}}"),), least=0),
                Panel("Time of a pass",
                      tuple(Query(_quantile(share, p.RECONCILE), what)
                            for share, what in ((0.5, "median"), (0.99, "99 of 100"))), "s", least=0),
                Panel("Longest pass in progress", (Query(_worst(p.LONGEST_PASS), "{{pod}}"),), "s", least=0),
                Panel("Queue", (Query(_worst(p.QUEUE_DEPTH), "{{pod}}"),), least=0,
                      meaning="Jobs that wait for a worker."),
                Panel("Oldest in the queue", (Query(_worst(p.QUEUE_OLDEST), "{{pod}}"),), "s", least=0),
                Panel("Event loop is late by", (Query(_worst(p.LOOP_LAG), "{{pod}}"),), "s", least=0),
            ),
        ),
        Row(
            "API server",
            (
                Panel("Requests a second", (Query(_rate(p.API_REQUESTS.name, "verb"), "{{verb}}"),), "reqps", least=0),
                Panel("Failed requests a second",
                      (Query(_rate(p.API_REQUESTS.name, "verb, kind, code", f'{_OPERATOR}, code!~"2..|404|409|410"'),
                             "{{verb}} {{kind}} {{code}}"),),
                      "reqps", least=0, meaning="Code 0: no answer."),
                Panel("Time until an answer begins, 99 of 100",
                      (Query(_quantile(0.99, p.API_REQUEST_S, "verb"), "{{verb}}"),), "s", least=0),
            ),
        ),
        Row(
            "Process",
            (
                Panel("Cores",
                      (Query(_process(f"rate({p.PROCESS_CPU.name}{{{_OPERATOR}}}[{RATE}])"), "{{pod}}"),), least=0),
                Panel("Memory",
                      (Query(_process(f"{p.PROCESS_MEMORY.name}{{{_OPERATOR}}}"), "{{pod}}"),), "bytes", least=0),
                Panel("Open files and connections",
                      (Query(_process(f"{p.PROCESS_FILES.name}{{{_OPERATOR}}}"), "{{pod}}"),), least=0),
            ),
        ),
    ),
)  # fmt: skip

ALL: Mapping[str, Dashboard] = {"operator": OPERATOR, "training": TRAINING}


def files() -> dict[str, str]:
    """Path below the chart's folder -> text."""
    return {f"dashboards/{name}.json": dashboard.text() for name, dashboard in ALL.items()}
