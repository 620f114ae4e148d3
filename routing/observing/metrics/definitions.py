"""The gateway's metrics: every name, label, bucket and unit.

Nothing else declares one, except the figures of a replica (`scheduling.replica_figures`) their gauges.

Labels come from the fleet alone, never from a request. Names and units are as Prometheus wants them; where
OpenTelemetry's semantic conventions for GenAI have a metric of the same meaning, it is named (`gen_ai`), and
not exported a second time.
"""

from __future__ import annotations

from functools import partial

from engines.metric import Metric, MetricKind
from routing.scheduling.figure import gauges
from routing.scheduling.replica_figures import ReplicaReport

OTHER = "other"  # label value of models without series of their own

_COUNTER, _GAUGE, _HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM

MODEL_LABELS = ("pool", "tenant", "model", "adapter", "version")
REPLICA_LABELS = ("pool", "replica")
QUEUE_LABELS = ("tenant", "model")

# Seconds. From a small model's prefill to the longest wait; dense where objectives lie.
FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
QUEUE_BUCKETS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
# A decode step: 5 ms is a small model alone, 60 ms is still fluent for a reader, a second is a stall.
TOKEN_BUCKETS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)

# -- by model ----------------------------------------------------------------------------------------------

REQUESTS = Metric(
    "tenantry_requests",
    _COUNTER,
    "Requests by how they ended, and why where they were not completed: a cap, `overloaded` (shed), a fault.",
    (*MODEL_LABELS, "outcome", "reason"),
)
FIRST_TOKEN = Metric(
    "tenantry_time_to_first_token_seconds",
    _HISTOGRAM,
    "From a request's arrival to the first byte of its answer, waiting included.",
    MODEL_LABELS,
    FIRST_TOKEN_BUCKETS,
    "gen_ai.server.time_to_first_token",
)
OUTPUT_TOKEN = Metric(
    "tenantry_time_per_output_token_seconds",
    _HISTOGRAM,
    "Mean time per token after the first, of each stream of two tokens or more.",
    MODEL_LABELS,
    TOKEN_BUCKETS,
    "gen_ai.server.time_per_output_token",
)
DURATION = Metric(
    "tenantry_request_duration_seconds",
    _HISTOGRAM,
    "From arrival to the last byte, of requests that were granted a replica.",
    MODEL_LABELS,
    DURATION_BUCKETS,
    "gen_ai.server.request.duration",
)
QUEUE_TIME = Metric(
    "tenantry_queue_time_seconds",
    _HISTOGRAM,
    "From arrival to the last grant of a replica, or to the end of a request that expired without one.",
    MODEL_LABELS,
    QUEUE_BUCKETS,
)
PROMPT_TOKENS = Metric(
    "tenantry_prompt_tokens",
    _COUNTER,
    "Prompt tokens, as engines count them.",
    MODEL_LABELS,
    gen_ai="gen_ai.client.token.usage (gen_ai.token.type=input)",
)
CACHED_TOKENS = Metric(
    "tenantry_cached_prompt_tokens",
    _COUNTER,
    "Those of the prompt tokens that were found in an engine's prefix cache.",
    MODEL_LABELS,
)
COMPLETION_TOKENS = Metric(
    "tenantry_completion_tokens",
    _COUNTER,
    "Completion tokens, as engines count them.",
    MODEL_LABELS,
    gen_ai="gen_ai.client.token.usage (gen_ai.token.type=output)",
)
ESTIMATED_USAGE = Metric(
    "tenantry_usage_estimated",
    _COUNTER,
    "Requests with tokens that no engine has counted: they were cut off before, or the answer does not say.",
    MODEL_LABELS,
)
ENGINE_TIME = Metric(
    "tenantry_engine_seconds",
    _COUNTER,
    "Requests' shares of engines' time: n sequences that run at once have 1/n of it each.",
    MODEL_LABELS,
)
SWITCH_SHARE = Metric(
    "tenantry_engine_switch_seconds",
    _COUNTER,
    "Requests' shares of switches between whole models: those that waited for one bear it together.",
    MODEL_LABELS,
)
SLOW_FIRST_TOKENS = Metric(
    "tenantry_slow_first_tokens",
    _COUNTER,
    "Answers whose first byte came later than the pool's objective `slo.ttft_s`; pools that have one.",
    MODEL_LABELS,
)
SLOW_STREAMS = Metric(
    "tenantry_slow_streams",
    _COUNTER,
    "Streams whose mean time per token was above the pool's objective `slo.itl_s`; pools that have one.",
    MODEL_LABELS,
)
MODELS = Metric(
    "tenantry_metrics_models",
    _GAUGE,
    "Models (tenant, name, version) by their series on this page: `own` series, or a part of `other`, "
    "counted over a minute.",
    ("series",),
)

# -- by pool and replica -----------------------------------------------------------------------------------

WAITS = Metric(
    "tenantry_waits",
    _COUNTER,
    "Requests that could not run when they came, by why: `waits_for` of the log line.",
    ("pool", "waits_for"),
)
GRANTS = Metric(
    "tenantry_grants",
    _COUNTER,
    "Requests that were granted a replica, by the reason for it: `picked` of the log line.",
    ("pool", "picked"),
)
HEDGES = Metric("tenantry_hedged_requests", _COUNTER, "Requests that two replicas were asked.", ("pool",))
RETRIES = Metric(
    "tenantry_retries",
    _COUNTER,
    "Replicas asked beyond each request's first: one broke before it answered, or it was hedged.",
    ("pool",),
)
REPLICA_REQUESTS = Metric(
    "tenantry_replica_requests",
    _COUNTER,
    "Requests by the replica that was asked last.",
    (*REPLICA_LABELS, "outcome"),
)
REPLICA_BREAKS = Metric(
    "tenantry_replica_breaks",
    _COUNTER,
    "Requests under which the replica broke before it answered; another one was asked.",
    REPLICA_LABELS,
)
REPLICA_STALLS = Metric(
    "tenantry_replica_stream_stalls",
    _COUNTER,
    "Times that a stream which had begun brought nothing from its engine for 5 s.",
    REPLICA_LABELS,
)
REPLICA_FIRST_TOKEN = Metric(
    "tenantry_replica_time_to_first_token_seconds",
    _HISTOGRAM,
    "From arrival to the first byte of the answer, by replica.",
    REPLICA_LABELS,
    FIRST_TOKEN_BUCKETS,
)
REPLICA_DURATION = Metric(
    "tenantry_replica_request_duration_seconds",
    _HISTOGRAM,
    "From arrival to the last byte, by replica.",
    REPLICA_LABELS,
    DURATION_BUCKETS,
)

# -- before a model is known -------------------------------------------------------------------------------

REFUSALS = Metric(
    "tenantry_refusals",
    _COUNTER,
    "Requests refused before a model was known: wrong keys or bodies, unknown models, none ready yet.",
    ("status", "reason"),
)

# -- read from the scheduler at each scrape ----------------------------------------------------------------

QUEUE_DEPTH = Metric("tenantry_queue_depth", _GAUGE, "Requests waiting for a replica.", QUEUE_LABELS)
QUEUE_AGE = Metric(
    "tenantry_queue_oldest_age_seconds",
    _GAUGE,
    "How long the oldest of them has waited.",
    QUEUE_LABELS,
)
IN_FLIGHT = Metric(
    "tenantry_in_flight", _GAUGE, "Sequences in the gateway, waiting or running.", QUEUE_LABELS
)
BAND_DEPTH = Metric(
    "tenantry_band_queue_depth", _GAUGE, "Requests waiting, by priority band.", ("pool", "band")
)
DESIRED = Metric(
    "tenantry_pool_desired_replicas",
    _GAUGE,
    "Replicas that a pool with a range of them should have, for an autoscaler: rises at once, and falls to "
    "the most of the last 300 s.",
    ("pool",),
)
# The gauges that a replica's figures name, each with its reader.
REPLICA_FIGURES = {
    Metric(gauge.name, _GAUGE, gauge.text, REPLICA_LABELS): partial(gauge.read, name)
    for name, gauge in gauges(ReplicaReport)
}
REPLICA_BREAKER = Metric(
    "tenantry_replica_breaker_state",
    _GAUGE,
    "1 for the state that the replica's circuit breaker is in, 0 for the others.",
    (*REPLICA_LABELS, "state"),
)

# -- read from the ledger at each scrape -------------------------------------------------------------------

USAGE_LOST = Metric(
    "tenantry_usage_lost_records",
    _COUNTER,
    "Requests whose usage is in no ledger: neither the database nor the disk had room for it.",
    (),
)
USAGE_AWAY = Metric(
    "tenantry_usage_database_away",
    _GAUGE,
    "1 while usage goes to files in the state folder, since the database does not take it, else 0.",
    (),
)

FALLBACKS = Metric(
    "tenantry_fallbacks",
    _COUNTER,
    "Requests for the tenant's model that its fallback answered, by why the model did not.",
    ("tenant", "model", "reason"),
)

# -- of batches --------------------------------------------------------------------------------------------

BATCHES = Metric(
    "tenantry_batches", _GAUGE, "Batches of this gateway that have not ended, by status.", ("status",)
)
BATCH_LINES = Metric(
    "tenantry_batch_lines",
    _COUNTER,
    "Lines of batches that have their answer on disk: `completed`, or `failed` and among the errors.",
    ("outcome",),
)

# -- of plans ----------------------------------------------------------------------------------------------

PLAN_DEVICES = Metric(
    "tenantry_plan_devices",
    _GAUGE,
    "Devices in use (`now`), and of a plan made anew from what was measured (`anew`), at the last look.",
    ("fleet",),
)
PLAN_ADVICE = Metric(
    "tenantry_plan_advice",
    _GAUGE,
    "1 for what two looks in a row would rather have: `stay`, `consolidate`, `split` or `rearrange`.",
    ("advice",),
)
PLAN_LOOKED = Metric("tenantry_plan_looked", _GAUGE, "Unix time of the last look at the plan, s.")

# -- of whole models that take turns -----------------------------------------------------------------------

SWITCHES = Metric(
    "tenantry_model_switches",
    _COUNTER,
    "Models that came awake, or failed to (`outcome`), by the way that their host took and by why they came.",
    ("pool", "model", "way", "cause", "outcome"),
)
SWITCH_TIME = Metric(
    "tenantry_model_switch_seconds",
    _COUNTER,
    "Seconds that switches took, from the order to the first request that could run.",
    ("pool", "model", "way"),
)
HOLDS = Metric(
    "tenantry_model_holds",
    _COUNTER,
    "Times that a model had to wait, by the reason, as `tenantry models` has them (`held`).",
    ("pool", "model", "why"),
)
AWAKE_TIME = Metric(
    "tenantry_model_awake_seconds",
    _COUNTER,
    "Seconds that models were awake at hosts.",
    ("pool", "host", "model"),
)
STARVATION_LIMIT = Metric(
    "tenantry_model_starvation_limit_seconds",
    _GAUGE,
    "The starvation limit as it counts now: that of the fleet, or longer where so many models wait that it "
    "cannot be kept.",
    ("pool",),
)

BUDGET = Metric(
    "tenantry_budget_tokens",
    _GAUGE,
    "The tenant's budget for a calendar month, UTC; tenants with a budget in tokens.",
    ("tenant",),
)
BUDGET_USED = Metric(
    "tenantry_budget_used_tokens",
    _GAUGE,
    "Its use in that month, and the expected use of running requests.",
    ("tenant",),
)
BUDGET_COST = Metric(
    "tenantry_budget_cost",
    _GAUGE,
    "The same for tenants with a budget in money, in the fleet's currency.",
    ("tenant",),
)
BUDGET_COST_USED = Metric(
    "tenantry_budget_used_cost",
    _GAUGE,
    "Its use in that month, and the expected use of running requests.",
    ("tenant",),
)

MODEL_METRICS = (
    REQUESTS,
    FIRST_TOKEN,
    OUTPUT_TOKEN,
    DURATION,
    QUEUE_TIME,
    PROMPT_TOKENS,
    CACHED_TOKENS,
    COMPLETION_TOKENS,
    ESTIMATED_USAGE,
    ENGINE_TIME,
    SWITCH_SHARE,
    SLOW_FIRST_TOKENS,
    SLOW_STREAMS,
)
POOL_METRICS = (WAITS, GRANTS, HEDGES, RETRIES)
REPLICA_METRICS = (REPLICA_REQUESTS, REPLICA_BREAKS, REPLICA_STALLS, REPLICA_FIRST_TOKEN, REPLICA_DURATION)
QUEUE_GAUGES = (QUEUE_DEPTH, QUEUE_AGE, IN_FLIGHT, BAND_DEPTH, DESIRED)
REPLICA_GAUGES = (*REPLICA_FIGURES, REPLICA_BREAKER)
LEDGER_METRICS = (USAGE_LOST, USAGE_AWAY)
TURN_METRICS = (SWITCHES, SWITCH_TIME, HOLDS, AWAKE_TIME, STARVATION_LIMIT)
BATCH_METRICS = (BATCHES, BATCH_LINES)
PLAN_METRICS = (PLAN_DEVICES, PLAN_ADVICE, PLAN_LOOKED)
BUDGET_GAUGES = (BUDGET, BUDGET_USED, BUDGET_COST, BUDGET_COST_USED)
GATEWAY_METRICS = (
    *MODEL_METRICS,
    MODELS,
    *POOL_METRICS,
    *REPLICA_METRICS,
    REFUSALS,
    FALLBACKS,
    *QUEUE_GAUGES,
    *REPLICA_GAUGES,
    *LEDGER_METRICS,
    *BATCH_METRICS,
    *TURN_METRICS,
    *PLAN_METRICS,
    *BUDGET_GAUGES,
)
