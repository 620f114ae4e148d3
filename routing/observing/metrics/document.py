"""Renders docs/metrics.md from the definitions.

tenantry metrics > docs/metrics.md
"""

from __future__ import annotations

from collections.abc import Iterable

from engines.loader.metrics import ENGINE_METRICS
from engines.metric import Metric, MetricKind
from engines.switching.metrics import SWITCHING_METRICS
from routing.observing.metrics import definitions as d

_HEAD = """\
<!-- Made by `tenantry metrics > docs/metrics.md` from routing/observing/metrics/definitions.py. -->
# Metrics

`GET /metrics` is the gateway's page, `GET /metrics/<replica>` that engine's: vLLM's own `vllm:*`, and
the few of ours [below](#on-an-engines-page). Both name every tenant, so they want an operator's key as
bearer token unless `gateway.metrics_access` says otherwise. A scraper whose `Accept` header asks for
OpenMetrics gets OpenMetrics 1.0 from the gateway, all others Prometheus' text format. Times are
seconds, other units stand in the names. Of vLLM's, `vllm:lora_requests_info` is left out: it would have
a series for every set of adapters that ever ran together. `tenantry_adapters_in_flight` has the number
of adapters with requests at a step.

Scrape configuration, rules and dashboards are in [deploy/observability](../deploy/observability); how
to use them: [observability.md](observability.md). The words: [glossary.md](glossary.md). What
`outcome` and `reason` can be: [operations.md](operations.md); `waits_for` and `picked`:
[scheduler.md](scheduler.md#reading-one-decision).
"""

_SERIES = """\
## How many series there are

A model is a (pool, tenant, model, adapter, version); an adapter's new version has new series, and the
old one's vanish with it. At most `gateway.metrics.max_models` models have series of their own; the
others' requests count under `tenant="other"`, `model="other"`, `adapter="other"`, `version="other"` of
their pool. Every minute the busiest of those take the places of models that have left, and of any that
has less than half of their requests. So a page has at most `(max_models + pools) x {lines}` lines, plus
the few by pool and replica, for any number of adapters.

A model leaves the page when it was unused for `gateway.metrics.idle_after_s`, or within a minute
or two of its version's retirement. Its series are closed first and stay, unchanged, for five minutes,
so that every scraper has seen their last value. Sums over `rate()` and `increase()` are therefore
exact, `other` included, for any changes of models. They are not added to `other` when they vanish: a
counter that jumps would be taken for traffic. Sums of the raw numbers mean nothing, as after a restart.
Bill from the usage ledger, which folds nothing.

A counter appears with its first request, so a rate over its first scrape interval misses that.

## By process

One gateway process serves a fleet, and every process has a registry of its own:
`PROMETHEUS_MULTIPROC_DIR`, in which BentoML would have all its workers add up their metrics, is taken
away before the first metric is made ([decision 3](decisions/0003-metrics-of-each-process.md)). The
gateway's page ends with the standard `process_*` metrics of its process: CPU seconds, resident memory,
open files.

Where [tracing](observability.md#tracing) is on, latency histograms in OpenMetrics carry exemplars: the
`trace_id` of the last traced request in each bucket.

Histograms have fixed buckets. Native histograms travel in a format that the Python client does not
write.
"""

_GEN_AI = """\
## OpenTelemetry's names

Where the semantic conventions for GenAI have a metric of the same meaning, ours is exported under our
name alone:

| OpenTelemetry | here |
|---|---|
{rows}

Their attributes `gen_ai.request.model` and `gen_ai.response.model` are the labels `model` and
`adapter`, `error.type` is `reason`; `gen_ai.provider.name` would always be `tenantry`.
"""


def document() -> str:
    """Return docs/metrics.md."""
    parts = [
        _HEAD,
        _section(
            "By model",
            "Labels: " + _codes(d.MODEL_LABELS) + ". A base model has no adapter and no version.",
            (*d.MODEL_METRICS, d.MODELS),
            common=d.MODEL_LABELS,
        ),
        _section("By pool", "", d.POOL_METRICS),
        _section(
            "By replica",
            "Labels: " + _codes(d.REPLICA_LABELS) + ".",
            d.REPLICA_METRICS,
            common=d.REPLICA_LABELS,
        ),
        _section("Before a model is known", "", (d.REFUSALS,)),
        _section("Fallbacks", "`model` is the one that was asked for.", (d.FALLBACKS,)),
        _section("Queues", "Read from the scheduler when the page is.", d.QUEUE_GAUGES),
        _section(
            "Replicas and slots",
            "Read from the scheduler when the page is. Labels: " + _codes(d.REPLICA_LABELS) + ".",
            d.REPLICA_GAUGES,
            common=d.REPLICA_LABELS,
        ),
        _section("Usage ledger", "Read from it when the page is.", d.LEDGER_METRICS),
        _section("Batches", "Of this gateway ([batches.md](batches.md)).", d.BATCH_METRICS),
        _section(
            "Whole models that take turns",
            "Of pools whose base models share hosts ([models.md](models.md)).",
            d.TURN_METRICS,
        ),
        _section("Plans", "Once a plan is watched ([planning.md](planning.md#watching)).", d.PLAN_METRICS),
        _section("Budgets", "Read from the usage ledger when the page is.", d.BUDGET_GAUGES),
        _section(
            "On an engine's page",
            "Beside vLLM's own. They carry no replica: the scrape configuration takes it from the path.",
            (*ENGINE_METRICS, *SWITCHING_METRICS),
        ),
        _SERIES.format(lines=sum(map(_lines, d.MODEL_METRICS))),
        _GEN_AI.format(rows=_gen_ai_rows()),
    ]
    return "\n".join(parts)


def _section(title: str, text: str, metrics: Iterable[Metric], common: tuple[str, ...] = ()) -> str:
    intro = f"{text}\n\n" if text else ""
    rows = "\n".join(_row(metric, common) for metric in metrics)
    return f"## {title}\n\n{intro}| metric | kind | labels | meaning |\n|---|---|---|---|\n{rows}\n"


def _row(metric: Metric, common: tuple[str, ...]) -> str:
    own = tuple(label for label in metric.labels if label not in common)
    more = "and " if own != metric.labels and own else ""
    text = metric.text
    if metric.kind is MetricKind.HISTOGRAM:
        text += f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}."
    return f"| `{metric.sample}` | {metric.kind} | {more}{_codes(own)} | {text} |"


def _codes(labels: Iterable[str]) -> str:
    return ", ".join(f"`{label}`" for label in labels)


def _lines(metric: Metric) -> int:
    """Lines of one label set, of requests for a handful of endings."""
    if metric.kind is MetricKind.HISTOGRAM:
        return len(metric.buckets) + 3
    return 5 if metric is d.REQUESTS else 1


def _gen_ai_rows() -> str:
    return "\n".join(
        f"| `{metric.gen_ai}` | `{metric.sample}` |" for metric in d.MODEL_METRICS if metric.gen_ai
    )
