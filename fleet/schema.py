"""The keys of fleet.yaml: types, bounds and defaults. Other modules check whether the parts fit together.

The texts here are the JSON Schema's descriptions, which editors show. Unknown keys are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from fleet.fields import (
    Alias,
    AwakeModels,
    Count,
    CountFromZero,
    Device,
    Gpu,
    KeySection,
    MediaHost,
    MigProfile,
    MinimumStay,
    Model,
    Name,
    Replicas,
    ReplicasSection,
    Section,
    Sha256,
    Source,
    SourcePrefix,
    VllmArgs,
)
from fleet.mig import MAX_COMPUTE_SLICES
from fleet.prices import BudgetSection, OwnPricesSection, PricesSection
from fleet.settings import GatewaySection, StateSection, UsageSection
from fleet.types import Band, Isolation, Strategy

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vLLM 0.32 builds kernels for these


def _check_lora_rank(rank: int) -> int:
    if rank not in LORA_RANKS:
        bigger = next((allowed for allowed in LORA_RANKS if allowed > rank), LORA_RANKS[-1])
        raise ValueError(f"vLLM takes {', '.join(map(str, LORA_RANKS))}; the next one up is {bigger}")
    return rank


class MediaTokensSection(Section):
    """How many tokens media in a prompt count until the engine has counted them."""

    image: int = Field(1024, ge=0, le=10_000_000, description="Tokens of a picture.")
    audio: int = Field(750, ge=0, le=10_000_000, description="Tokens of a recording.")
    video: int = Field(8192, ge=0, le=10_000_000, description="Tokens of a film.")


class MediaSection(Section):
    """Which pictures, recordings and films requests may hold, and from where engines may fetch them."""

    hosts: Annotated[tuple[MediaHost, ...], Field(strict=False)] = Field(
        (), description="Hosts from which engines fetch what requests name, by https; default: none."
    )
    max_mib: int = Field(16, ge=1, le=1024, description="MiB of one medium, given or fetched.")
    per_request: int = Field(16, ge=0, le=1000, description="Media of one request.")


class RequestLimitsSection(Section):
    """Upper limits of one request; a 400 names the field that exceeds one."""

    messages: int = Field(4096, ge=1, le=1_000_000, description="Messages and their parts, or input items.")
    tools: int = Field(256, ge=0, le=100_000, description="Tools.")
    choices: int = Field(128, ge=1, le=16384, description="Answers to one prompt: n, best_of.")
    beam_width: int = Field(0, ge=0, le=1024, description="Beams of a beam search; 0: none is run.")
    logprobs: int = Field(
        20,
        ge=0,
        le=1_000_000,
        description="Log-probabilities of each token; the engine has its own bound too.",
    )
    list_entries: int = Field(
        1024, ge=0, le=1_000_000, description="Entries of logit_bias, of lists of token ids and the like."
    )
    constraint_entries: int = Field(
        2000, ge=0, le=1_000_000, description="Choices, or properties, values and alternatives of a schema."
    )
    constraint_kib: int = Field(
        64,
        ge=0,
        le=65536,
        description="KiB of choices, a grammar or a schema; a 16th of it for a regular expression, "
        "four times as much for all tools.",
    )


class BaseModelSection(Section):
    """Weights that adapters modify, and the settings of every engine that holds them."""

    source: Source = Field(
        description="Folder, or hub id (org/name). In pools of strategy model-mesh and swap also a URL, "
        "which the gateway fetches: hf://org/name@revision, s3://, gs://, https:// (an archive)."
    )
    sha256: Sha256 | None = Field(None, description="Promised of a URL's archive, or model.safetensors.")
    revision: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = Field(
        None, description="Hub revision: a commit, tag or branch. Only with a hub id."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32", "half", "float"] = Field(
        "auto", description="Weight and activation type; auto takes the checkpoint's."
    )
    max_model_len: Count | None = Field(
        None, description="Longest prompt and completion together, in tokens; default: the model's."
    )
    max_num_seqs: int = Field(256, ge=1, le=65536, description="Sequences one engine runs at once.")
    max_loras: int = Field(
        0, ge=0, le=1024, description="Adapter slots per engine; 0 serves the base model alone."
    )
    max_lora_rank: Annotated[int, AfterValidator(_check_lora_rank)] = Field(
        16,
        description="Largest adapter rank; every slot is as large as this.",
        json_schema_extra={"enum": list(LORA_RANKS)},
    )
    max_cpu_loras: int | None = Field(
        None, ge=0, le=100_000, description="Adapters kept in host memory; default: 4 x max_loras."
    )
    tensor_parallel_size: int = Field(1, ge=1, le=64, description="GPUs one engine spreads over.")
    gpu_memory_utilization: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Fraction of a GPU's memory that one engine takes and needs free at start; "
        "default: vLLM's.",
    )
    kv_cache_gib: float | None = Field(
        None,
        gt=0,
        le=65536,
        description="KV cache in GiB; default: the rest of the GPU's memory, 1 on a CPU.",
    )
    media_tokens: MediaTokensSection = Field(
        MediaTokensSection(),
        description="Tokens that media in a prompt count until the engine has counted them.",
    )
    request_limits: RequestLimitsSection = Field(
        RequestLimitsSection(), description="Upper limits of one request."
    )
    media: MediaSection = Field(
        MediaSection(),
        description="Pictures, recordings and films in requests; engines fetch none by default.",
    )
    vllm_args: VllmArgs = Field((), description="Further `vllm serve` flags: a mapping or a list.")


class AdapterSection(Section):
    """A LoRA adapter in PEFT format that fits one base model."""

    source: Source = Field(
        description="Folder with adapter_config.json and adapter_model.safetensors, or a URL: "
        "hf://org/name@revision, s3://, gs://, https:// (an archive), bento://."
    )
    base_model: Name = Field(description="Name of the base model it was trained on.")
    max_concurrency: Count | None = Field(
        None, description="Sequences of all tenants and versions together; default: no such cap."
    )


class CapsSection(Section):
    """Limits of one tenant; a request with n choices or n prompts counts n sequences."""

    max_concurrency: Count = Field(64, description="Sequences in the gateway at once, all models together.")
    max_concurrency_per_model: Count | None = Field(
        None, description="The same for one model; default: no such cap."
    )
    max_queued: CountFromZero = Field(256, description="Requests waiting in the gateway.")
    max_queued_tokens: Count | None = Field(
        None, description="Prompt tokens of those, estimated; default: no such cap."
    )
    requests_per_minute: Count | None = Field(
        None, description="Requests in any minute; default: no such cap."
    )
    tokens_per_minute: Count | None = Field(
        None, description="Prompt and completion tokens in any minute; default: no such cap."
    )
    queue_timeout_s: float = Field(30.0, gt=0, le=3600, description="Longest wait before a request expires.")


class TenantKeySection(KeySection):
    """An API key of a tenant: its sha256, or the environment variable that holds it; its own limits."""

    name: Name | None = Field(None, description="What lists call it.")
    max_concurrency: Count | None = Field(
        None, description="Sequences in the gateway at once with this key; default: the tenant's cap."
    )
    max_queued: CountFromZero | None = Field(
        None, description="Requests with this key that wait; default: the tenant's cap."
    )
    requests_per_minute: Count | None = Field(
        None, description="Requests with this key in any minute; default: the tenant's cap."
    )
    tokens_per_minute: Count | None = Field(
        None, description="Tokens with this key in any minute; default: the tenant's cap."
    )
    monthly_tokens: Count | None = Field(
        None, description="Tokens with this key in a month; default: the tenant's budget."
    )


class TenantSection(Section):
    """An owner of API keys, with limits."""

    api_keys: Annotated[tuple[TenantKeySection, ...], Field(strict=False)] = Field(
        description="Keys of this tenant; several allow a change without a gap. Each may have limits. Empty: "
        "all are made at run time."
    )
    models: dict[Alias, Model] = Field(
        min_length=1,
        description="The tenant's name for a model -> adapter or base model, or {model, fallback}.",
    )
    default_model: Alias | None = Field(
        None,
        description="Used when a request names no model; default: the only model, where there is one. "
        "null: a request must name one.",
    )
    priority: Annotated[Band, Field(strict=False)] = Field(
        Band.STANDARD,
        description="Band: a higher one is served before a lower one, except for grants that "
        "gateway.scheduler.lower_band_share keeps.",
    )
    weight: float = Field(1.0, gt=0, le=1_000_000, description="Share within the band.")
    caps: CapsSection = Field(CapsSection(), description="Limits.")
    isolation: Annotated[Isolation, Field(strict=False)] = Field(
        Isolation.SHARED, description="dedicated: no replica serves this tenant and another."
    )
    adapter_sources: Annotated[tuple[SourcePrefix, ...], Field(strict=False)] = Field(
        (),
        description="Where this tenant's own keys may fetch adapters from: prefixes of sources, such as "
        "s3://bucket or hf://org; default: uploads only.",
    )
    budget: BudgetSection | None = Field(
        None, description="Tokens or money of a month; default: no such limit."
    )
    prices: OwnPricesSection | None = Field(
        None, description="What this tenant pays instead of the fleet's prices; default: those."
    )
    request_limits: RequestLimitsSection = Field(
        RequestLimitsSection(),
        description="Limits of this tenant that replace its base models' request_limits.",
    )
    suspended: bool = Field(False, description="Refuse its keys; nothing of it is deleted.")

    @property
    def meanings(self) -> dict[str, str]:
        """The tenant's name for each model -> adapter or base model."""
        return {alias: section.model for alias, section in self.models.items()}


class SloSection(Section):
    """Service level objectives of a pool's users."""

    ttft_s: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="Arrival to first token; requests below the high band that would wait longer are shed; "
        "default: no such objective.",
    )
    itl_s: float | None = Field(
        None,
        gt=0,
        le=60,
        description="Between two tokens of one stream; bounds a replica's sequences at once; "
        "default: no such objective.",
    )


class MigSection(Section):
    """MIG slices of one GPU, found by their profile when engines start; a replica for each."""

    gpu: Gpu = Field(description="The GPU: its index as nvidia-smi counts, or its UUID.")
    profile: MigProfile = Field(description="Profile of the slices, such as 1g.20gb.")
    count: int = Field(1, ge=1, le=MAX_COMPUTE_SLICES, description="How many of them.")


class ResidencySection(Section):
    """How long base models that share hosts stay awake, and which of them come first."""

    ttl_s: float | None = Field(
        None,
        gt=0,
        le=30 * 86400,
        description="A model unused for this long goes to disk; default: only for another's sake.",
    )
    min_s: MinimumStay = Field(
        None,
        description="A model that came stays awake this long; auto: as its switch is measured to cost.",
    )
    max_turn_s: float = Field(
        60.0, gt=0, le=86400, description="Longest awake at a stretch while requests for others wait."
    )
    starvation_limit_s: float = Field(
        30.0,
        gt=0,
        le=86400,
        description="No request for a model waits longer than this, one drain and one switch together.",
    )
    preload: Annotated[tuple[Name, ...], Field(strict=False)] = Field(
        (), description="Base models that are awake first after a start."
    )
    pinned: Annotated[tuple[Name, ...], Field(strict=False)] = Field(
        (), description="Base models that are always awake."
    )


class PoolSection(Section):
    """Replicas alike in base models and settings."""

    strategy: Annotated[Strategy, Field(strict=False)] = Field(
        Strategy.MULTI_LORA, description="How the pool places models on replicas."
    )
    base_models: Annotated[tuple[Name, ...], Field(strict=False, min_length=1)] = Field(
        description="Base models of the pool; exactly one with multi-lora and mig."
    )
    replicas: Replicas = Field(
        1,
        description="Engines per base model, or {min, max}; hosts where they are shared; not with mig.",
    )
    devices: Annotated[tuple[Device, ...], Field(strict=False)] = Field(
        (), description="CUDA_VISIBLE_DEVICES of each replica, or host, in turn; empty: not set."
    )
    mig: MigSection | None = Field(
        None, description="Slices by GPU and profile, in place of devices; only with strategy mig."
    )
    tenants: Annotated[tuple[Name, ...], Field(strict=False)] = Field(
        description="Tenants of the pool. Empty: all are admitted at run time."
    )
    slo: SloSection = Field(SloSection(), description="Service level objective.")
    hedge_after_s: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="How long the first replica may be silent before a second one is asked; default: never.",
    )
    awake: AwakeModels = Field(
        None,
        description="Base models awake at once at a host of a model-mesh pool; auto: as many as are measured "
        "to fit its memory.",
    )
    residency: ResidencySection | None = Field(
        None, description="Of model-mesh and swap: how long base models stay awake, and which come first."
    )
    sleep: bool | None = Field(
        None,
        description="Of model-mesh and swap, on GPUs: a model that goes sleeps if it can (vLLM's sleep mode, "
        "level 1 or 2); default: false.",
    )
    fork_server: bool | None = Field(
        None,
        description="Of model-mesh and swap: each host keeps a process that has imported vLLM, and forks "
        "engines from it; default: true.",
    )

    @property
    def hosts(self) -> int:
        """How many host processes the pool has; each has devices of its own."""
        return self.engines * (1 if self.strategy.shares_hosts else len(self.base_models))

    def models_at(self, host: int) -> tuple[str, ...]:
        """The base models that the host of this index may serve."""
        if self.strategy.shares_hosts:
            return self.base_models
        return self.base_models[host // self.engines : host // self.engines + 1]

    @property
    def engines(self) -> int:
        """Engines per base model: of a pool of MIG slices one for each slice."""
        if self.strategy is not Strategy.MIG:
            return self.replicas.max if isinstance(self.replicas, ReplicasSection) else int(self.replicas)
        return len(self.devices) or (1 if self.mig is None else self.mig.count)


class FleetFile(Section):
    """A fleet: base models, adapters, tenants, pools, gateway, state."""

    base_models: dict[Name, BaseModelSection] = Field(min_length=1, description="Base models by name.")
    adapters: dict[Name, AdapterSection] = Field({}, description="Adapters by name.")
    tenants: dict[Name, TenantSection] = Field(
        description="Tenants by name. Empty: all are admitted at run time."
    )
    pools: dict[Name, PoolSection] = Field(min_length=1, description="Pools by name.")
    gateway: GatewaySection = Field(GatewaySection(), description="Gateway settings.")
    state: StateSection = Field(StateSection(), description="Storage of run-time changes.")
    usage: UsageSection = Field(UsageSection(), description="Retention of the usage ledger.")
    prices: PricesSection | None = Field(None, description="What models cost; default: nothing has a price.")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of fleet.yaml."""
    schema = FleetFile.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        for field in section.get("properties", {}).values():
            if "patternProperties" in field:  # pydantic leaves names that do not match to anything
                field["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "fleet.yaml"}
