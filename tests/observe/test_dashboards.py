"""The dashboards as Grafana reads them."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from trainserve.observe import dashboards, prometheus
from trainserve.observe.grafana import WIDTH

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/platform-operator"
TEXTS = dashboards.files()


@pytest.fixture(params=sorted(TEXTS))
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TEXTS[request.param])
    return found


def test_what_is_committed_is_what_is_generated() -> None:
    assert {path: (CHART / path).read_text() for path in TEXTS} == TEXTS
    assert {path.relative_to(CHART).as_posix() for path in (CHART / "dashboards").iterdir()} == set(TEXTS)


def test_panels_do_not_overlap_and_fill_no_more_than_the_grid(dashboard: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert all(before < after for before, after in pairwise(ids))


def test_every_panel_has_a_query_for_the_chosen_source_with_the_chosen_filters(dashboard: dict[str, Any]) -> None:
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    assert "datasource" in variables
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len(panels) > 10
    for panel in panels:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        names = [target["refId"] for target in panel["targets"]]
        assert names
        assert len(set(names)) == len(names)
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {*variables, "__rate_interval"}
            assert 'namespace=~"$' in target["expr"], f"{panel['title']}: not filtered"
            assert target["instant"] != target["range"]


def test_variables_are_asked_of_series_that_there_are(dashboard: dict[str, Any]) -> None:
    known = {metric.name: metric for metric in (*prometheus.TRAINING, *prometheus.OPERATOR)}
    asked = [each for each in dashboard["templating"]["list"] if each["type"] == "query"]
    assert asked
    for each in asked:
        match = re.fullmatch(r"label_values\((\w+)(\{.*\})?, (\w+)\)", each["query"]["query"])
        assert match is not None
        metric = known[match[1]]
        assert match[3] in {*metric.labels, "namespace", "job"}


def test_metrics_are_spelt_in_one_module() -> None:
    again = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "platform").rglob("*.py")
        if path.name != "prometheus.py"
        and re.search(r"trainserve_(training|operator)_|training_operator_jobs_\w", path.read_text(encoding="utf-8"))
    }
    assert again == set()
