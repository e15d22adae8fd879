"""Grafana dashboards as the JSON that its provisioning reads: shapes alone, what is in them stands elsewhere. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

WIDTH = 24  # of the grid
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION = 39  # of Grafana 11; later ones read it
REFRESH = "30s"


@dataclass(frozen=True)
class Query:
    """PromQL, and what a line of it is called: label names in {{ }}."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """`unit` is Grafana's word (short, s, percentunit, bytes, ...). A stat shows the last value, a timeseries all."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    meaning: str = ""
    kind: str = "timeseries"  # or stat, bargauge
    width: int = 8
    height: int = 7
    least: float | None = None  # of the axis
    most: float | None = None
    steps: tuple[tuple[str, float], ...] = ()  # colour from a value on, after green
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """A heading and what is below it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice above the panels: the values of `label` that `series` has; all of them at first."""

    name: str
    title: str
    series: str
    label: str


@dataclass(frozen=True)
class Dashboard:
    """One page."""

    uid: str
    title: str
    meaning: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    def text(self) -> str:
        """The JSON, the same for the same contents."""
        return json.dumps(_dashboard(self), indent=2, ensure_ascii=False) + "\n"

    def queries(self) -> list[Query]:
        """Every query of a panel."""
        return [query for row in self.rows for panel in row.panels for query in panel.queries]


def _dashboard(dashboard: Dashboard) -> Document:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.meaning,
        "tags": ["trainserve"],
        "editable": True,
        "graphTooltip": 1,  # the same moment in all panels
        "refresh": REFRESH,
        "schemaVersion": SCHEMA_VERSION,
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "templating": {"list": [_datasource(), *(_variable(each) for each in dashboard.variables)]},
        "panels": _panels(dashboard.rows),
    }


def _datasource() -> Document:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(variable: Variable) -> Document:
    query = f"label_values({variable.series}, {variable.label})"
    return {
        "name": variable.name,
        "label": variable.title,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": variable.name},
        "refresh": 2,  # whenever the time changes: jobs come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _panels(rows: Sequence[Row]) -> list[Document]:
    found: list[Document] = []
    y = 0
    for row in rows:
        place = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        heading = {"type": "row", "title": row.title, "collapsed": False, "panels": []}
        found.append({"id": len(found) + 1, "gridPos": place, **heading})
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            place = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            found.append({"id": len(found) + 1, "gridPos": place, **_panel(panel)})
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return found


def _panel(panel: Panel) -> Document:
    at_once = panel.kind != "timeseries"
    steps: list[Mapping[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": color, "value": value} for color, value in panel.steps]
    defaults: Document = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.least is not None:
        defaults["min"] = panel.least
    if panel.most is not None:
        defaults["max"] = panel.most
    if at_once:
        options: Document = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        if panel.kind == "bargauge":
            options |= {"orientation": "horizontal", "displayMode": "basic"}
        defaults["color"] = {"mode": "thresholds"}
    else:
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 20 if panel.stacked else 0,
            "showPoints": "auto",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [_target(query, index, at_once=at_once) for index, query in enumerate(panel.queries)],
    }


def _target(query: Query, index: int, *, at_once: bool) -> Document:
    return {
        "refId": chr(ord("A") + index),
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": at_once,
        "range": not at_once,
    }
