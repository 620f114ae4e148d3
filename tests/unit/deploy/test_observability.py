"""deploy/observability: rules and queries are valid, name what exists, and do what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.observability import dashboards
from engines.loader.metrics import ENGINE_METRICS
from engines.metric import Metric, MetricKind
from routing.observing.metrics.definitions import GATEWAY_METRICS

FOLDER = Path(dashboards.__file__).parent
RULES = ("rules/recording.yml", "rules/alerts.yml")
BUDGETS = {f"tenantry_budget_{name}" for name in ("tokens", "used_tokens", "cost", "used_cost")}
OTHERS = {"vllm:kv_cache_usage_perc"}  # engines' pages; the end-to-end test looks for it
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed"
)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)


def rules(kind: str) -> list[dict[str, Any]]:
    """Every rule that is one: `record` or `alert`."""
    groups = [group for name in RULES for group in yaml.safe_load((FOLDER / name).read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every panel of every dashboard, with a name for it."""
    for name, text in dashboards.files().items():
        for panel in json.loads(text)["panels"]:
            yield f"{name}: {panel['title']}", panel


def queries() -> dict[str, str]:
    """Every query of the dashboards, as Prometheus gets it."""
    found = {}
    for name, panel in panels():
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "1m")
            found[f"{name} {target['refId']}"] = re.sub(r"\$(tenant|model)\b", "acme", query)
    return found


def samples(metric: Metric) -> set[str]:
    """The names under which a metric is found."""
    if metric.kind is MetricKind.HISTOGRAM:
        return {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    return {metric.sample}


def known() -> set[str]:
    defined = {name for metric in (*GATEWAY_METRICS, *ENGINE_METRICS) for name in samples(metric)}
    return defined | {rule["record"] for rule in rules("record")} | BUDGETS | OTHERS


def named(query: str) -> set[str]:
    return set(re.findall(r"\b(?:tenantry|vllm)[_:][a-zA-Z0-9_:]+", re.sub(r'"[^"]*"', '""', query)))


def test_the_dashboards_are_those_of_the_code() -> None:
    written = {path.name: path.read_text() for path in (FOLDER / "dashboards").iterdir()}
    assert written == dashboards.files(), "python -m deploy.observability.dashboards"


def test_every_query_names_metrics_that_exist() -> None:
    for name, query in queries().items():
        assert named(query) or "ALERTS" in query, name
        assert named(query) <= known(), name
    for rule in (*rules("record"), *rules("alert")):
        assert named(rule["expr"]) <= known(), rule


def test_labels_in_queries_are_those_of_the_metrics() -> None:
    labels = {label for metric in (*GATEWAY_METRICS, *ENGINE_METRICS) for label in metric.labels}
    labels |= {"le", "job", "alertstate", "alertname", "replica", "instance"}
    expressions = [*queries().values(), *(rule["expr"] for rule in (*rules("record"), *rules("alert")))]
    for query in expressions:
        chosen = re.findall(r"[{,]\s*([a-z_]+)\s*(?:=|!=|=~|!~)\"", query)
        grouped = [
            label for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for label in group.split(",")
        ]
        for label in (*chosen, *(each.strip() for each in grouped if each.strip())):
            assert label in labels, (label, query)


def test_dashboards_have_names_and_places_of_their_own() -> None:
    for text in dashboards.files().values():
        board = json.loads(text)
        taken: set[tuple[int, int]] = set()
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
            taken |= cells
    assert len({json.loads(text)["uid"] for text in dashboards.files().values()}) == 3


def test_every_alert_is_shown_to_fire_and_says_how_bad_it_is() -> None:
    fired = {
        case["alertname"]
        for test in yaml.safe_load((FOLDER / "tests/alerts.yml").read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in rules("alert")}
    assert {rule["labels"]["severity"] for rule in rules("alert")} == {"page", "ticket"}


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then() -> None:
    tested = promtool("test", "rules", "tests/alerts.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@needs_promtool
def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    for arguments in (("check", "rules", *RULES), ("check", "config", "--syntax-only", "prometheus.yml")):
        checked = promtool(*arguments)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_prometheus_understands_every_query_of_the_dashboards(tmp_path: Path) -> None:
    records = [{"record": f"query:{i}", "expr": query} for i, query in enumerate(queries().values())]
    assert len(records) > 50
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": records}]}))
    checked = promtool("check", "rules", str(file))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_documentation_names_every_alert_and_no_other() -> None:
    page = (FOLDER.parents[1] / "docs" / "observability.md").read_text()
    assert set(re.findall(r"`(Tenantry[A-Za-z]+)`", page)) == {rule["alert"] for rule in rules("alert")}
