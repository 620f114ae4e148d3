"""The counters from which a demand can be read: whose they are, and under which labels models have them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from planning.measuring import NOTHING, usual_spread
from planning.reading.request_log import Naming
from planning.requests import MAX_TOKENS
from planning.values import ModelDemand, Spread


@dataclass(frozen=True, slots=True)
class Family:
    """The counters of one program."""

    program: str
    requests: str
    prompt: str
    completion: str
    cached: str  # "": it has none
    models: tuple[str, ...]  # labels that name the model, the first one that is there
    tenants: tuple[str, ...] = ()  # and who asks
    adapter: str = ""  # and the adapter's name, beside the tenant's own for it

    def owner(self, labels: Mapping[str, str], naming: Naming) -> tuple[str, str]:
        """Return (model, tenant) of a counter; the model is empty where it names none."""
        model = next((labels[name] for name in self.models if labels.get(name)), "")
        tenant = next((labels[name] for name in self.tenants if labels.get(name)), "")
        return naming(tenant, model, labels.get(self.adapter, "")) if model else "", tenant

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels that are looked at."""
        return tuple(filter(None, (*self.models, *self.tenants, self.adapter)))

    @property
    def counters(self) -> tuple[str, ...]:
        """The names of the counters that there are, without the suffix `_total`."""
        return tuple(filter(None, (self.requests, self.prompt, self.completion, self.cached)))


# docs/metrics.md; vLLM 0.32, v1/metrics/loggers.py; LiteLLM's page "Prometheus metrics".
FAMILIES = (
    Family(
        "this gateway",
        "tenantry_requests",
        "tenantry_prompt_tokens",
        "tenantry_completion_tokens",
        "tenantry_cached_prompt_tokens",
        ("model",),
        ("tenant",),
        "adapter",
    ),
    Family(
        "vLLM",
        "vllm:request_success",
        "vllm:prompt_tokens",
        "vllm:generation_tokens",
        "vllm:prefix_cache_hits",
        ("model_name",),
    ),
    Family(
        "LiteLLM",
        "litellm_proxy_total_requests_metric",
        "litellm_input_tokens_metric",
        "litellm_output_tokens_metric",
        "",
        ("requested_model", "model"),
        ("team_alias", "team"),
    ),
)


def of_counters(
    model: str,
    tenants: Collection[str],
    counted: Mapping[str, float],
    hourly: tuple[float, ...],
    spreads: tuple[Spread | None, Spread | None] = (None, None),
) -> ModelDemand:
    """Return the demand that sums show; `counted` by requests, prompt, completion, cached.

    `spreads` are of prompt and completion where they are known; else lengths are as chats have them.
    """
    requests = counted.get("requests", 0.0)
    prompt, completion = (
        min(MAX_TOKENS, counted.get(name, 0.0) / requests) if requests > 0 else 0.0
        for name in ("prompt", "completion")
    )
    means = (usual_spread(mean) if mean > 0 else NOTHING for mean in (prompt, completion))
    of_prompt, of_completion = (known or usual for known, usual in zip(spreads, means, strict=True))
    tokens = counted.get("prompt", 0.0)
    return ModelDemand(
        model=model,
        tenants=tuple(sorted(tenants)),
        requests=requests,
        hourly=hourly,
        prompt=of_prompt,
        completion=of_completion,
        cached=min(1.0, counted.get("cached", 0.0) / tokens) if tokens > 0 else 0.0,
    )
