"""The rules: promtool takes them, and each alert's case fails where the alert always fires, and where it never does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.prometheus import RULES, promtool, rules, series_in
from trainserve.observe import dashboards, prometheus

CASES = sorted(Path(__file__).parent.glob("*.test.yaml"))
PAGE = Path(__file__).parents[2] / "docs/how-to/watch-a-cluster.md"
ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
SERIES = {
    name
    for metric in (*prometheus.TRAINING, *prometheus.OPERATOR, *prometheus.UPSTREAM, *prometheus.PROCESS)
    for name in metric.series()
}


def named(rule: dict[str, Any]) -> str:
    return str(rule["alert"])


@pytest.mark.slow
def test_promtool_takes_the_rules() -> None:
    done = promtool("check", "rules", *sorted(RULES.glob("*.yaml")))
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_alerts_fire_where_they_should_and_are_quiet_where_not(case: Path) -> None:
    done = promtool("test", "rules", case)
    assert done.returncode == 0, done.stdout


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_not() -> None:
    told = [
        (each["alertname"], bool(each["exp_alerts"]))
        for case in CASES
        for test in yaml.safe_load(case.read_text())["tests"]
        for each in test.get("alert_rule_test", [])
    ]
    missing = {(alert["alert"], fires) for alert in ALERTS for fires in (True, False)} - set(told)
    assert missing == set()
    assert {name for name, _ in told} == {alert["alert"] for alert in ALERTS}


@pytest.mark.slow
@pytest.mark.parametrize("expr", ["vector(1)", "vector(0) > 1"], ids=["always", "never"])
def test_each_alerts_case_fails_where_it_always_or_never_fires(expr: str, tmp_path: Path) -> None:
    folder, cases = tmp_path / "helm/platform-operator/rules", tmp_path / "tests/prometheus"
    folder.mkdir(parents=True)
    cases.mkdir(parents=True)
    for path in RULES.glob("*.yaml"):
        document = yaml.safe_load(path.read_text())
        for rule in (rule for group in document["groups"] for rule in group["rules"] if "alert" in rule):
            rule["expr"] = expr
        (folder / path.name).write_text(yaml.safe_dump(document))
    for case in CASES:
        (cases / case.name).write_text(case.read_text())
    done = promtool("test", "rules", *sorted(cases.iterdir()))
    failed = set(re.findall(r"alertname: *(\w+)", done.stdout))
    assert {alert["alert"] for alert in ALERTS} - failed == set(), done.stdout


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_each_alert_says_what_it_means_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    told = alert["annotations"]
    assert set(told) == {"summary", "description", "runbook"}
    assert len(told["runbook"]) > 40
    row = re.search(rf"^\| `{alert['alert']}` \| .* \| (\w+) \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert row is not None, f"{PAGE.name} has no row for it"
    assert row[1] == alert["labels"]["severity"]


def test_the_page_has_no_other_alert() -> None:
    assert set(re.findall(r"^\| `(Trainserve\w+)`", PAGE.read_text(), flags=re.MULTILINE)) == set(map(named, ALERTS))


def test_rules_and_dashboards_use_series_that_there_are() -> None:
    queries = [rule["expr"] for rule in rules()]
    queries += [query.expr for each in dashboards.ALL.values() for query in each.queries()]
    used = {name for query in queries for name in series_in(query)}
    assert used - SERIES - RECORDED == set()
    # A recorded series is for an alert, or a user's own: the page tells of it.
    assert {name for name in RECORDED if name not in used and name not in PAGE.read_text()} == set()


def test_every_metric_is_in_a_rule_or_on_a_dashboard() -> None:
    queries = [rule["expr"] for rule in rules()]
    queries += [query.expr for each in dashboards.ALL.values() for query in each.queries()]
    used = {name for query in queries for name in series_in(query)}
    ours = (*prometheus.TRAINING, *prometheus.OPERATOR, *prometheus.UPSTREAM)
    assert {metric.name for metric in ours if not used & set(metric.series())} == set()
