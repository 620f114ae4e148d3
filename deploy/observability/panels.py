"""What are Grafana's dashboards built of? Queries, panels and a page of them, as Grafana's JSON has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH = 24  # of Grafana's grid
Panel = dict[str, Any]


def target(query: str, legend: str = "", *, table: bool = False) -> dict[str, Any]:
    """One query of a panel."""
    found: dict[str, Any] = {"expr": query, "legendFormat": legend, "datasource": SOURCE, "exemplar": True}
    if table:
        found |= {"format": "table", "instant": True, "exemplar": False}
    return found


def series(title: str, unit: str, *targets: dict[str, Any], text: str = "", stack: bool = False) -> Panel:
    """A panel of lines over time."""
    custom = {"fillOpacity": 20 if stack else 0, "stacking": {"mode": "normal" if stack else "none"}}
    return {
        "type": "timeseries",
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "targets": _lettered(targets),
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def number(title: str, unit: str, query: str, *, red_from: float | None = None) -> Panel:
    """A panel of one number."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if red_from is not None:
        steps.append({"color": "red", "value": red_from})
    return {
        "type": "stat",
        "title": title,
        "datasource": SOURCE,
        "targets": _lettered([target(query)]),
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background"},
    }


def slowest(title: str, query: str, unit: str, text: str) -> Panel:
    """A table of models, the worst first; a click on one opens its dashboard."""
    chosen = "var-tenant=${__data.fields.tenant}&var-model=${__data.fields.model}"
    link = f"/d/tenantry-model?{chosen}&${{__url_time_range}}"
    cells = {"type": "color-background", "mode": "gradient"}
    return {
        "type": "table",
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "targets": _lettered([target(query, table=True)]),
        "transformations": [
            {"id": "organize", "options": {"excludeByName": {"Time": True, "__name__": True}}},
            {"id": "sortBy", "options": {"sort": [{"field": "Value", "desc": True}]}},
        ],
        "fieldConfig": {
            "defaults": {"links": [{"title": "Open this model", "url": link}]},
            "overrides": [
                {
                    "matcher": {"id": "byName", "options": "Value"},
                    "properties": [
                        {"id": "unit", "value": unit},
                        {"id": "custom.cellOptions", "value": cells},
                    ],
                }
            ],
        },
        "options": {"showHeader": True},
    }


def quantiles(metric: str, labels: str) -> list[dict[str, Any]]:
    """p50, p90 and p99 of a histogram, all that the labels choose together."""
    rate = f"sum by (le) (rate({metric}_bucket{{{labels}}}[$__rate_interval]))"
    return [target(f"histogram_quantile({q}, {rate})", f"p{round(100 * q)}") for q in (0.5, 0.9, 0.99)]


def rate(metric: str, labels: str, by: str) -> str:
    """Events per second, added up by labels."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def variable(name: str, query: str) -> dict[str, Any]:
    """A choice at the top of a dashboard."""
    return {
        "type": "query",
        "name": name,
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard(
    uid: str, title: str, rows: Sequence[tuple[int, Sequence[Panel]]], variables: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """A whole dashboard: rows of panels of one height, which share the width."""
    panels: list[Panel] = []
    top = 0
    for height, row in rows:
        width = WIDTH // len(row)
        for column, panel in enumerate(row):
            place = {"x": column * width, "y": top, "w": width, "h": height}
            panels.append({"id": len(panels) + 1, "gridPos": place, **panel})
        top += height
    source = {"type": "datasource", "name": "source", "label": "Prometheus", "query": "prometheus"}
    return {
        "uid": uid,
        "title": title,
        "tags": ["tenantry"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "tags": ["tenantry"],
                "title": "Tenantry",
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": [source, *variables]},
        "panels": panels,
    }


def _lettered(targets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"refId": chr(ord("A") + number), **each} for number, each in enumerate(targets)]
