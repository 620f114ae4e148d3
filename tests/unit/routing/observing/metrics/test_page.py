"""What a settled request adds to the page, and in which format it is read."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from engines.metric import MetricKind
from fleet.money import COST_UNITS
from fleet.types import MetricsSettings, Slo
from routing.catalog.plans import PlanFigures
from routing.observing.metrics import GatewayMetrics, TextFormat
from routing.observing.metrics.definitions import GATEWAY_METRICS
from routing.types import FallbackReason, Outcome, Record
from routing.usage.budget import BudgetStatus, Level
from tests.unit.routing.observing.metrics.scrapes import Samples, ended, openmetrics_families, samples
from tests.unit.routing.requests import target
from tests.unit.routing.scheduling.busy import busy

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True)
class Ledger:
    """One that has seen better days."""

    lost: int = 7
    is_away: bool = True

    def budget_statuses(self) -> list[BudgetStatus]:
        return [
            BudgetStatus("a", 100, 40, Level.BELOW, 0.0),
            BudgetStatus("b", 20 * COST_UNITS, COST_UNITS // 2, Level.BELOW, 0.0, "EUR"),
        ]


class Turns:
    """A pool with one model that came awake."""

    switches: ClassVar = {("base", "fork", "worth", "awake"): 3}
    switch_s: ClassVar = {("base", "fork"): 4.5}
    limit_s = 30.0
    holds: ClassVar = {("base", "young"): 1}

    def awake_s(self) -> dict[tuple[str, str], float]:
        return {("mesh-0", "base"): 60.0}


class Batches:
    """One batch that runs."""

    lines: ClassVar = {"completed": 5, "failed": 1}

    def unfinished(self) -> dict[str, int]:
        return {"in_progress": 1}


LOOKED = PlanFigures(4, 2, "consolidate", 1.7e9)


@dataclass
class Plans:
    """Of which the last look would save two devices."""

    figures: PlanFigures | None = LOOKED


def test_the_last_look_at_the_plan_is_there_once_there_was_one() -> None:
    page = metrics()
    found = samples(page.page())
    assert total(found, "tenantry_plan_devices", fleet="now") == 4
    assert total(found, "tenantry_plan_devices", fleet="anew") == 2
    assert total(found, "tenantry_plan_advice", advice="consolidate") == 1
    assert total(found, "tenantry_plan_looked") == 1.7e9
    page.plans = Plans(None)
    assert "tenantry_plan_looked" not in samples(page.page())


def metrics(slo: Slo | None = None) -> GatewayMetrics:
    house = busy()
    house.give_range(1)
    slos = {"shared": slo or Slo(), "alone": Slo()}
    page = GatewayMetrics(
        house.dispatcher, clock=house.clock, slos=slos, ledger=Ledger(), turns={"mesh": Turns()}
    )
    page.batches, page.plans = Batches(), Plans()
    return page


def after(*records: Record, slo: Slo | None = None) -> Samples:
    page = metrics(slo)
    for record in records:
        page.settled([record])
    return samples(page.page())


def total(found: Samples, name: str, **labels: str) -> float:
    rows = found.get(name, {})
    return sum(value for row, value in rows.items() if labels.items() <= dict(row).items())


def record(outcome: Outcome, reason: str, **changes: Any) -> Record:
    return Record("id", target(), outcome, 503, reason, **changes)


def test_a_completed_stream_is_in_every_histogram() -> None:
    found = after(ended())
    for name in ("time_to_first_token", "time_per_output_token", "request_duration", "queue_time"):
        assert total(found, f"tenantry_{name}_seconds_count") == 1, name
    assert total(found, "tenantry_time_per_output_token_seconds_bucket", le="0.05") == 1
    assert total(found, "tenantry_time_per_output_token_seconds_bucket", le="0.04") == 0
    assert total(found, "tenantry_time_to_first_token_seconds_sum") == pytest.approx(0.3)
    assert total(found, "tenantry_prompt_tokens_total") == 100
    assert total(found, "tenantry_cached_prompt_tokens_total") == 64


def test_a_bound_belongs_to_its_bucket() -> None:
    found = after(ended(first_byte_s=0.5))
    assert total(found, "tenantry_time_to_first_token_seconds_bucket", le="0.5") == 1


def test_one_that_was_rejected_has_an_outcome_and_no_times() -> None:
    found = after(record(Outcome.REJECTED, "max_concurrency"))
    assert total(found, "tenantry_requests_total", outcome="rejected", reason="max_concurrency") == 1
    assert total(found, "tenantry_queue_time_seconds_count") == 0


def test_the_wait_of_one_that_expired_counts() -> None:
    found = after(record(Outcome.EXPIRED, "queue_timeout", total_s=30.0, waits_for="no_slot"))
    assert total(found, "tenantry_queue_time_seconds_sum") == 30.0
    assert total(found, "tenantry_request_duration_seconds_count") == 0
    assert total(found, "tenantry_waits_total", pool="shared", waits_for="no_slot") == 1


def test_what_missed_an_objective_is_counted_where_there_is_one() -> None:
    late, slow = ended(first_byte_s=2.0, total_s=4.0), ended(first_byte_s=0.5, total_s=10.5)
    found = after(ended(), late, slow, slo=Slo(ttft_s=1.0, itl_s=0.1))
    assert total(found, "tenantry_slow_first_tokens_total") == 1
    assert total(found, "tenantry_slow_streams_total") == 1
    assert "tenantry_slow_first_tokens_total" not in after(late)


def test_hedges_retries_and_broken_replicas_are_counted() -> None:
    found = after(
        ended(attempts=2, hedged=True), ended(attempts=3, failed_on=frozenset({"shared-1"})), ended()
    )
    assert total(found, "tenantry_hedged_requests_total", pool="shared") == 1
    assert total(found, "tenantry_retries_total", pool="shared") == 3
    assert total(found, "tenantry_replica_breaks_total", replica="shared-1") == 1
    assert total(found, "tenantry_replica_requests_total", replica="shared-0", outcome="completed") == 3
    assert total(found, "tenantry_grants_total", pool="shared", picked="running") == 3


def fallen_back(alias: str) -> Record:
    """A request that another model answered in the place of an alias."""
    reason = FallbackReason.QUARANTINED
    return replace(ended(), target=replace(target(), fallback_of=alias, fallback_reason=reason))


def test_fallbacks_are_counted_for_the_model_that_was_asked_for_up_to_a_bound() -> None:
    house, bound = busy(), MetricsSettings(max_models=1)
    made = GatewayMetrics(house.dispatcher, clock=house.clock, slos={"shared": Slo()}, settings=bound)
    aliases = [f"model-{number}" for number in range(len(FallbackReason) + 2)]
    made.settled([fallen_back(alias) for alias in (*aliases, "model-0")])
    found = samples(made.page())
    assert total(found, "tenantry_fallbacks_total", model="model-0", reason="quarantined") == 2
    assert total(found, "tenantry_fallbacks_total", model="other") == 2


def test_a_budget_and_what_is_used_of_it_are_there() -> None:
    found = after()
    assert total(found, "tenantry_budget_tokens", tenant="a") == 100
    assert total(found, "tenantry_budget_used_tokens", tenant="a") == 40
    assert total(found, "tenantry_budget_cost", tenant="b") == 20
    assert total(found, "tenantry_budget_used_cost", tenant="b") == 0.5


def test_what_the_ledger_lost_and_whether_its_database_is_away_is_there() -> None:
    found = after()
    assert total(found, "tenantry_usage_lost_records_total") == 7
    assert total(found, "tenantry_usage_database_away") == 1


def test_everything_on_the_page_is_defined_and_nothing_else_is() -> None:
    everything = metrics(Slo(ttft_s=0.1, itl_s=0.01))
    everything.settled(
        [ended(attempts=2, hedged=True, waits_for="no_slot", switch_s=0.5), fallen_back("support")]
    )
    everything.refused(401, "invalid_api_key")
    page = everything.page().decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    ours = {name: kind for name, kind in types.items() if not name.startswith("process_")}
    assert ours == {metric.sample: metric.kind.value for metric in GATEWAY_METRICS}


def test_names_are_as_prometheus_wants_them() -> None:
    for metric in GATEWAY_METRICS:
        assert re.fullmatch(r"tenantry(_[a-z]+)+", metric.name), metric
        assert not re.search(r"_(total|ms|milliseconds|minutes|percent|kib|mib)\b", metric.name), metric
        if metric.kind is MetricKind.HISTOGRAM:
            assert metric.unit == "seconds" and list(metric.buckets) == sorted(set(metric.buckets))
    assert len({metric.name for metric in GATEWAY_METRICS}) == len(GATEWAY_METRICS)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, TextFormat.PROMETHEUS),
        ("", TextFormat.PROMETHEUS),
        ("*/*", TextFormat.PROMETHEUS),
        ("text/plain", TextFormat.PROMETHEUS),
        (OPENMETRICS, TextFormat.OPENMETRICS),
        ("application/openmetrics-text", TextFormat.OPENMETRICS),
        # Prometheus 2.42 and 3.x
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            TextFormat.OPENMETRICS,
        ),
        ("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.1", TextFormat.PROMETHEUS),
        ("application/openmetrics-text;q=0", TextFormat.PROMETHEUS),
        ("application/openmetrics-text;version=2.0.0", TextFormat.PROMETHEUS),
        ("application/openmetrics-text;q=nonsense", TextFormat.PROMETHEUS),
        (";;,,q=", TextFormat.PROMETHEUS),
    ],
)
def test_the_format_is_what_the_scraper_asks_for(accept: str | None, form: TextFormat) -> None:
    assert TextFormat.accepted(accept) is form


async def test_both_formats_say_the_same() -> None:
    page = metrics()
    page.settled([ended()])
    kind, text = await page.read(OPENMETRICS)
    assert kind.startswith(b"application/openmetrics-text")
    assert text.endswith(b"# EOF\n") and text.count(b"# EOF") == 1
    families = openmetrics_families(text)
    histogram = families["tenantry_time_to_first_token_seconds"]
    assert histogram.unit == "seconds"
    plain = samples(page.page())["tenantry_time_to_first_token_seconds_bucket"]
    assert {
        tuple(sorted(s.labels.items())): s.value for s in histogram.samples if s.name.endswith("_bucket")
    } == plain


def test_a_page_changes_as_soon_as_something_was_counted() -> None:
    page = metrics()
    for expected in (1, 2, 3):
        page.settled([ended()])
        assert total(samples(page.page()), "tenantry_requests_total", model="adapter-0000") == expected
        assert total(samples(page.page()), "tenantry_requests_total", model="adapter-0000") == expected


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_prometheus_own_tool_finds_nothing_to_complain_of() -> None:
    page = metrics(Slo(ttft_s=0.1, itl_s=0.01))
    page.settled([ended(attempts=2, hedged=True, waits_for="no_slot")])
    page.refused(401, "invalid_api_key")
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=page.page(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
