"""Which dashboards are there for Grafana? Three: the fleet, one model, one tenant. Writes their JSON files.

    python -m deploy.observability.dashboards

Every query names metrics of docs/metrics.md or records of rules/recording.yml.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.observability.panels import (
    Panel,
    dashboard,
    number,
    quantiles,
    rate,
    series,
    slowest,
    target,
    variable,
)

FOLDER = Path(__file__).parent / "dashboards"
OF_MODEL = 'tenant=~"$tenant", model=~"$model"'
OF_TENANT = 'tenant=~"$tenant"'


def fleet() -> dict[str, Any]:
    """All models, pools and replicas."""
    busiest = "sum by (tenant, model) (rate(tenantry_completion_tokens_total[$__rate_interval]))"
    loads = "sum by (replica, tier, le) (rate(tenantry_adapter_load_seconds_bucket[$__rate_interval]))"
    rows: list[tuple[int, Sequence[Panel]]] = [
        (
            9,
            [
                slowest(
                    "Slowest models: p99 of the first token, 5 min",
                    "topk(15, tenantry:first_token_seconds:p99_5m)",
                    "s",
                    "The slow model is on top; click on it.",
                ),
                slowest(
                    "Models that miss their objective, 5 min",
                    "topk(15, tenantry:slo_missed:ratio_rate5m > 0)",
                    "percentunit",
                    "Failed, expired, shed, or later than slo.ttft_s.",
                ),
                slowest(
                    "Longest waiting now",
                    "topk(15, tenantry_queue_oldest_age_seconds > 0)",
                    "s",
                    "Age of the oldest request that waits for a replica.",
                ),
            ],
        ),
        (
            4,
            [
                number("Requests/s", "reqps", "sum(rate(tenantry_requests_total[$__rate_interval]))"),
                number("In flight", "short", "sum(tenantry_in_flight)"),
                number("Waiting", "short", "sum(tenantry_queue_depth)", red_from=100),
                number("Replicas not ready", "short", "sum(1 - tenantry_replica_ready)", red_from=1),
                number(
                    "Alerts",
                    "short",
                    'count(ALERTS{alertstate="firing", alertname=~"Tenantry.*"}) or vector(0)',
                    red_from=1,
                ),
            ],
        ),
        (
            8,
            [
                series(
                    "First token, p99 by model",
                    "s",
                    target("topk(10, tenantry:first_token_seconds:p99_5m)", "{{tenant}}/{{model}}"),
                ),
                series(
                    "Tokens/s by model",
                    "short",
                    target(f"topk(10, {busiest})", "{{tenant}}/{{model}}"),
                    stack=True,
                ),
                series(
                    "Endings other than completed",
                    "reqps",
                    target(
                        rate("tenantry_requests_total", 'outcome!="completed"', "outcome, reason"),
                        "{{outcome}} {{reason}}",
                    ),
                    target(rate("tenantry_refusals_total", "", "status, reason"), "{{status}} {{reason}}"),
                ),
            ],
        ),
        (
            8,
            [
                series(
                    "Waiting by band",
                    "short",
                    target("tenantry_band_queue_depth", "{{pool}} {{band}}"),
                    stack=True,
                ),
                series(
                    "Why they wait",
                    "reqps",
                    target(rate("tenantry_waits_total", "", "pool, waits_for"), "{{pool}} {{waits_for}}"),
                ),
                series(
                    "Why that replica",
                    "reqps",
                    target(rate("tenantry_grants_total", "", "pool, picked"), "{{pool}} {{picked}}"),
                    text="Much `elsewhere` and `home`: adapters wander, slots or replicas are too few.",
                ),
            ],
        ),
        (
            8,
            [
                series(
                    "Slots leased, of all",
                    "percentunit",
                    target("tenantry_replica_leased_slots / (tenantry_replica_slots > 0)", "{{replica}}"),
                ),
                series(
                    "Adapters put out of slots and memory",
                    "ops",
                    target(
                        rate("tenantry_adapter_evictions_total", "", "replica, from"), "{{replica}} {{from}}"
                    ),
                    target(
                        rate("tenantry_adapter_load_failures_total", "", "replica"),
                        "{{replica}} failed loads",
                    ),
                ),
                series(
                    "Adapter loads, p99",
                    "s",
                    target(f"histogram_quantile(0.99, {loads})", "{{replica}} {{tier}}"),
                ),
            ],
        ),
        (
            8,
            [
                series(
                    "Replicas: sequences and capacity",
                    "short",
                    target("tenantry_replica_in_flight", "{{replica}} in flight"),
                    target("tenantry_replica_capacity", "{{replica}} capacity"),
                ),
                series(
                    "Replicas: KV cache in use (vLLM)",
                    "percentunit",
                    target("max by (replica) (vllm:kv_cache_usage_perc)", "{{replica}}"),
                ),
                series(
                    "Replicas: breaks, stalls, breakers not closed",
                    "short",
                    target(rate("tenantry_replica_breaks_total", "", "replica"), "{{replica}} breaks/s"),
                    target(
                        rate("tenantry_replica_stream_stalls_total", "", "replica"), "{{replica}} stalls/s"
                    ),
                    target('1 - tenantry_replica_breaker_state{state="closed"}', "{{replica}} breaker"),
                ),
            ],
        ),
    ]
    return dashboard("tenantry-fleet", "Tenantry / Fleet", rows, [])


def model() -> dict[str, Any]:
    """One model: where its time goes, and why."""
    variables = [
        variable("tenant", "label_values(tenantry_requests_total, tenant)"),
        variable("model", 'label_values(tenantry_requests_total{tenant=~"$tenant"}, model)'),
    ]
    rows: list[tuple[int, Sequence[Panel]]] = [
        (
            4,
            [
                number(
                    "First token, p99 of 5 min",
                    "s",
                    f"max(tenantry:first_token_seconds:p99_5m{{{OF_MODEL}}})",
                ),
                number(
                    "Of that, waiting in the queue", "s", f"max(tenantry:queue_seconds:p99_5m{{{OF_MODEL}}})"
                ),
                number(
                    "Objective missed, 1 h",
                    "percentunit",
                    f"max(tenantry:slo_missed:ratio_rate1h{{{OF_MODEL}}})",
                    red_from=0.01,
                ),
                number("Waiting now", "short", f"sum(tenantry_queue_depth{{{OF_MODEL}}})", red_from=20),
                number(
                    "Oldest waits", "s", f"max(tenantry_queue_oldest_age_seconds{{{OF_MODEL}}})", red_from=10
                ),
            ],
        ),
        (
            8,
            [
                series(
                    "First token",
                    "s",
                    *quantiles("tenantry_time_to_first_token_seconds", OF_MODEL),
                    text="Diamonds are traced requests, where Prometheus keeps exemplars.",
                ),
                series("Queue", "s", *quantiles("tenantry_queue_time_seconds", OF_MODEL)),
                series(
                    "Time per output token",
                    "s",
                    *quantiles("tenantry_time_per_output_token_seconds", OF_MODEL),
                ),
            ],
        ),
        (
            8,
            [
                series(
                    "Endings",
                    "reqps",
                    target(
                        rate("tenantry_requests_total", OF_MODEL, "outcome, reason"), "{{outcome}} {{reason}}"
                    ),
                    stack=True,
                ),
                series(
                    "Requests by version",
                    "reqps",
                    target(
                        rate("tenantry_requests_total", OF_MODEL, "adapter, version"),
                        "{{adapter}} v{{version}}",
                    ),
                    stack=True,
                ),
                series(
                    "Tokens/s",
                    "short",
                    target(rate("tenantry_prompt_tokens_total", OF_MODEL, "model"), "prompt"),
                    target(rate("tenantry_cached_prompt_tokens_total", OF_MODEL, "model"), "of those cached"),
                    target(rate("tenantry_completion_tokens_total", OF_MODEL, "model"), "completion"),
                ),
            ],
        ),
        (
            8,
            [
                series("Whole request", "s", *quantiles("tenantry_request_duration_seconds", OF_MODEL)),
                series(
                    "Waiting and running",
                    "short",
                    target(f"sum(tenantry_queue_depth{{{OF_MODEL}}})", "waiting requests"),
                    target(f"sum(tenantry_in_flight{{{OF_MODEL}}})", "sequences, all"),
                ),
                series(
                    "First token p99 by version",
                    "s",
                    target(
                        "histogram_quantile(0.99, sum by (version, le) (rate("
                        f"tenantry_time_to_first_token_seconds_bucket{{{OF_MODEL}}}[$__rate_interval])))",
                        "v{{version}}",
                    ),
                ),
            ],
        ),
    ]
    return dashboard("tenantry-model", "Tenantry / Model", rows, variables)


def tenant() -> dict[str, Any]:
    """One tenant: what it uses, what it hits, how it is served."""
    budget = " or ".join(
        f"tenantry_budget_used_{unit}{{{OF_TENANT}}} / tenantry_budget_{unit}{{{OF_TENANT}}}"
        for unit in ("tokens", "cost")
    )
    rows: list[tuple[int, Sequence[Panel]]] = [
        (
            4,
            [
                number(
                    "Requests/s",
                    "reqps",
                    f"sum(rate(tenantry_requests_total{{{OF_TENANT}}}[$__rate_interval]))",
                ),
                number("In flight", "short", f"sum(tenantry_in_flight{{{OF_TENANT}}})"),
                number("Waiting", "short", f"sum(tenantry_queue_depth{{{OF_TENANT}}})"),
                number("Budget used", "percentunit", f"max({budget})", red_from=1),
            ],
        ),
        (
            8,
            [
                slowest(
                    "Its models: p99 of the first token, 5 min",
                    f"tenantry:first_token_seconds:p99_5m{{{OF_TENANT}}}",
                    "s",
                    "Click on one to open it.",
                ),
                series(
                    "First token, p99 by model",
                    "s",
                    target(f"tenantry:first_token_seconds:p99_5m{{{OF_TENANT}}}", "{{model}}"),
                ),
            ],
        ),
        (
            8,
            [
                series(
                    "Requests/s by model",
                    "reqps",
                    target(rate("tenantry_requests_total", OF_TENANT, "model"), "{{model}}"),
                    stack=True,
                ),
                series(
                    "Tokens/s by model",
                    "short",
                    target(rate("tenantry_prompt_tokens_total", OF_TENANT, "model"), "{{model}} prompt"),
                    target(
                        rate("tenantry_completion_tokens_total", OF_TENANT, "model"), "{{model}} completion"
                    ),
                    stack=True,
                ),
                series(
                    "Caps hit and requests shed",
                    "reqps",
                    target(
                        rate("tenantry_requests_total", f'{OF_TENANT}, outcome="rejected"', "reason"),
                        "{{reason}}",
                    ),
                ),
            ],
        ),
    ]
    variables = [variable("tenant", "label_values(tenantry_requests_total, tenant)")]
    return dashboard("tenantry-tenant", "Tenantry / Tenant", rows, variables)


def files() -> dict[str, str]:
    """Every file's name and text."""
    built = {"fleet": fleet(), "model": model(), "tenant": tenant()}
    return {f"{name}.json": json.dumps(each, indent=1) + "\n" for name, each in built.items()}


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text)
