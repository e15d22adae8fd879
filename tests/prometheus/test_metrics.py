"""What a scrape of a training pod and of the operator gets, as promtool's linter sees it."""

from __future__ import annotations

from typing import Any

import pytest

from support.prometheus import promtool
from support.scenario import pytorchjob
from trainserve.kube import names
from trainserve.observe import prometheus
from trainserve.observe.exposition import exposition
from trainserve.operator.metrics import Metrics


def operators_page() -> str:
    """With every metric in it, each counted once."""
    metrics = Metrics()
    job: dict[str, Any] = pytorchjob()
    job["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    metrics.watch(
        jobs=lambda: [job],
        depth=lambda: 1,
        oldest_s=lambda: 1,
        longest_pass_s=lambda: 1,
        leading=lambda: True,
        lag_s=lambda: 0.1,
    )
    active = {"Master": {"active": 1}, "Worker": {"active": 2}}
    metrics.status_written(job, {}, {"replicaStatuses": active})
    metrics.status_written(job, {"replicaStatuses": active}, {"history": [{"generation": 1, "reason": "TakenAway"}]})
    metrics.request("create", names.POD, 403, 0.1)
    metrics.pass_ended("success", 0.1)
    return metrics.page().decode()


def trainings_page() -> str:
    return exposition(dict.fromkeys(prometheus.TRAINING, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("page", [operators_page, trainings_page])
def test_promtools_linter_has_no_complaint(page: Any) -> None:
    done = promtool("check", "metrics", stdin=page())
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
def test_the_linter_would_complain() -> None:
    done = promtool(
        "check", "metrics", stdin="# TYPE trainserve_training_millis counter\ntrainserve_training_millis 1\n"
    )
    assert done.returncode != 0


def test_the_table_of_names_is_what_the_operator_answers() -> None:
    page = operators_page()
    families = {line.split()[2]: line.split()[3] for line in page.splitlines() if line.startswith("# TYPE")}
    ours = {name: kind for name, kind in families.items() if not name.startswith("process_")}
    table = (*prometheus.OPERATOR, *prometheus.UPSTREAM)
    assert ours == {metric.name: metric.kind for metric in table}
    for metric in prometheus.PROCESS:
        assert families[metric.name] == metric.kind
    for metric in table:
        line = next(line for line in page.splitlines() if line.startswith(metric.series()[-1]))
        assert all(f'{label}="' in line for label in metric.labels), line
