"""A fleet as plain values: base models, adapters, tenants, pools, settings. Knows no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import quote

from fleet.batch_settings import BatchSettings
from fleet.content import Guard, Media
from fleet.mig import Mig, SliceName
from fleet.money import OwnPrices, Prices
from fleet.pool_settings import ResidencySettings, Scaling


@dataclass(frozen=True, slots=True)
class MediaTokens:
    """Tokens counted for a picture, a recording and a film in a prompt, until the engine has counted them."""

    image: int = 1024  # one megapixel where a token covers 32 x 32 pixels, as with Qwen's models
    audio: int = 750  # half a minute at 25 tokens a second
    video: int = 8192


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The most that one request may ask an engine for; more would starve other requests."""

    messages: int = 4096  # and parts of them
    tools: int = 256
    choices: int = 128  # of each prompt
    beam_width: int = 0  # 0: no beam search
    logprobs: int = 20  # of each token
    list_entries: int = 1024  # of token ids and the like
    constraint_entries: int = 2000  # choices; properties, values and alternatives of a schema
    constraint_kib: int = 64  # text of choices, a grammar or a schema

    @property
    def constraint_bytes(self) -> int:
        """The last one in bytes."""
        return self.constraint_kib * 1024


@dataclass(frozen=True, slots=True)
class BaseModel:
    """Weights that adapters modify, and the vLLM settings of every engine that holds them.

    Fields left `None` are left to vLLM's own default. Names follow vLLM's flags (`vllm serve --help`).
    """

    name: str
    source: str  # absolute folder, a hub id such as "org/name", or a URL from which the gateway fetches it
    revision: str | None = None  # hub revision; only with a hub id
    dtype: str = "auto"
    max_model_len: int | None = None  # tokens, prompt and completion together
    max_num_seqs: int = 256  # sequences one engine runs at once
    max_loras: int = 0  # slots per engine; 0 serves the base model alone
    max_lora_rank: int = 16
    max_cpu_loras: int = 0  # adapters kept in host memory per engine; >= max_loras
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float | None = None  # 0..1
    kv_cache_bytes: int | None = None  # None: vLLM profiles the GPU; on CPU 1 GiB
    media_tokens: MediaTokens = MediaTokens()
    request_limits: RequestLimits = RequestLimits()
    media: Media = field(default_factory=Media)
    vllm_args: tuple[str, ...] = ()  # further flags, passed as they are
    sha256: str | None = None  # promised of a URL's archive, or of its only file of weights

    @property
    def serves_adapters(self) -> bool:
        """Whether engines of this base model are built with LoRA support."""
        return self.max_loras > 0


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter as declared: its source, and the one base model it fits."""

    name: str
    source: str  # absolute folder, or a URL that `adapters.sources` knows
    base_model: str  # name of a BaseModel
    max_concurrency: int | None = None  # sequences of all tenants and versions together; None: no such cap


class Strategy(StrEnum):
    """How a pool puts models on replicas."""

    REPLICA_PER_MODEL = "replica-per-model"  # each base model has its own replicas, no adapters
    MULTI_LORA = "multi-lora"  # one base model, many adapters, selected per request
    MODEL_MESH = "model-mesh"  # each host has all base models; as many as its memory takes are awake
    SWAP = "swap"  # the same with one awake at a time

    @property
    def shares_hosts(self) -> bool:
        """Whether several base models share a host, so that they are awake by turns."""
        return self in (Strategy.MODEL_MESH, Strategy.SWAP)

    MIG = "mig"  # one base model, a replica on each of some MIG slices; adapters where it has slots


class Isolation(StrEnum):
    """Whether a tenant may share a replica with others."""

    SHARED = "shared"
    DEDICATED = "dedicated"  # its pool serves this tenant alone


class Band(StrEnum):
    """Priority band of a tenant: a higher band is served strictly before a lower one."""

    HIGH = "high"
    STANDARD = "standard"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 is served first; vLLM's `priority` uses the same direction."""
        return _BAND_RANK[self]


_BAND_RANK = {Band.HIGH: 0, Band.STANDARD: 1, Band.LOW: 2}


@dataclass(frozen=True, slots=True)
class Caps:
    """Limits of one tenant. A request with n choices or n prompts counts n sequences."""

    max_concurrency: int = 64  # sequences in flight, all models together
    max_concurrency_per_model: int | None = None  # sequences in flight for one model; None: no such cap
    max_queued: int = 256  # requests waiting in the gateway
    max_queued_tokens: int | None = None  # prompt tokens of those, estimated; None: no such cap
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # prompt and completion together, as engines count them
    queue_timeout_s: float = 30.0  # longest wait in the gateway before the request expires


@dataclass(frozen=True, slots=True)
class Budget:
    """What one tenant may use in a calendar month, UTC: tokens, or money."""

    monthly_tokens: int | None = None  # prompt and completion together
    soft: float = 0.8  # fraction of it at which warnings begin
    monthly_cost: int | None = None  # in units of a cost; one of the two is set


def account_of(tenant: str, generation: int) -> str:
    """Return the name under which usage is counted. No tenant's name has the sign in it."""
    return f"{tenant}#{generation}" if generation else tenant


def tenant_of_account(account: str) -> str:
    """Return the name of the tenant whose usage is counted so."""
    return account.partition("#")[0]


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Limits of one API key, beside its tenant's. None: no such limit."""

    max_concurrency: int | None = None  # sequences in flight
    max_queued: int | None = None  # requests waiting in the gateway
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # prompt and completion together
    monthly_tokens: int | None = None  # the same, in a calendar month, UTC


NO_LIMITS = KeyLimits()


@dataclass(frozen=True, slots=True)
class Tenant:
    """An owner of API keys, with limits."""

    name: str
    key_hashes: frozenset[str]  # lower-case hex sha256 of each API key
    models: dict[str, str]  # alias -> name of an adapter or a base model
    default_model: str | None = None  # an alias, used when a request names no model
    band: Band = Band.STANDARD
    weight: float = 1.0  # share among backlogged tenants of one band
    caps: Caps = field(default_factory=Caps)
    isolation: Isolation = Isolation.SHARED
    adapter_sources: tuple[str, ...] = ()  # prefixes from which its own keys may fetch adapters
    budget: Budget | None = None  # None: no such limit
    prices: OwnPrices | None = None  # None: the fleet's
    fallbacks: Mapping[str, str] = field(default_factory=dict)  # alias -> another, or what it means
    request_limits: Mapping[str, int] = field(default_factory=dict)  # replace its base models'
    key_limits: Mapping[str, KeyLimits] = field(default_factory=dict)  # by hash; of keys that have some
    key_names: Mapping[str, str] = field(default_factory=dict)  # by hash; of keys that have one
    suspended: bool = False  # its keys are refused; nothing of it is deleted
    generation: int = 0  # how many tenants of this name were removed before it

    @property
    def account(self) -> str:
        """The name under which its usage is counted; no tenant before it had the same."""
        return account_of(self.name, self.generation)


@dataclass(frozen=True, slots=True)
class Slo:
    """Service level objectives of a pool's users. None: no such objective."""

    ttft_s: float | None = None  # arrival to first token; below the high band, late requests are shed
    itl_s: float | None = None  # between two tokens of one stream; bounds a replica's sequences at once


@dataclass(frozen=True, slots=True)
class Host:
    """One engine-host process on devices of its own: a replica for each base model that it may serve."""

    name: str
    replicas: tuple[tuple[str, str], ...]  # (replica name, base model)
    device: str | None  # CUDA_VISIBLE_DEVICES; None: not set
    on_slice: SliceName | None = None  # the MIG slice that it is pinned to; looked for before each start

    @property
    def place(self) -> str | None:
        """Its device in words; None where it is not pinned."""
        return self.device if self.on_slice is None else str(self.on_slice)

    @property
    def base_models(self) -> tuple[str, ...]:
        """The base models that it may serve."""
        return tuple(model for _, model in self.replicas)


@dataclass(frozen=True, slots=True)
class Pool:
    """Replicas alike in base models and settings."""

    name: str
    strategy: Strategy
    base_models: tuple[str, ...]
    replicas: int  # per base model; the number of hosts where these are shared; the slices of a MIG pool
    devices: tuple[str, ...]  # CUDA_VISIBLE_DEVICES of each host in turn; empty: not set
    tenants: tuple[str, ...]
    slo: Slo = Slo()
    hedge_after_s: float | None = None  # a second replica is asked after so long a silence; None: never
    mig: Mig | None = None  # slices that are found when engines start; None: `devices` names them, or no MIG
    awake: int | None = None  # base models awake at once at a shared host; None: as many as fit its memory
    residency: ResidencySettings = ResidencySettings()  # noqa: RUF009 - frozen; of shared hosts
    sleep: bool = False  # a model that goes from a shared host sleeps if it can; on GPUs
    fork_server: bool = True  # a shared host keeps a process from which its engines are forked
    scaling: Scaling | None = None  # fewer of its replicas may be there; None: all of them always

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Every host, in device order. One of a single base model goes by the same name as its replica."""
        if self.strategy.shares_hosts:
            replicas = [
                tuple((f"{self.name}-{i}.{model}", model) for model in self.base_models)
                for i in range(self.replicas)
            ]
        else:
            models = [model for model in self.base_models for _ in range(self.replicas)]
            replicas = [((f"{self.name}-{i}", model),) for i, model in enumerate(models)]
        devices = self.devices or (None,) * len(replicas)
        return tuple(
            Host(f"{self.name}-{i}", held, device, self._slice(i))
            for i, (held, device) in enumerate(zip(replicas, devices, strict=True))
        )

    @property
    def awake_at_once(self) -> int:
        """How many engines of one host are awake at most."""
        most = len(self.base_models) if self.strategy.shares_hosts else 1
        return min(self.awake or most, most)

    def _slice(self, host: int) -> SliceName | None:
        """Return the MIG slice of a host; None where the pool is no pool of slices."""
        if self.mig is not None:
            return SliceName(gpu=self.mig.gpu, profile=self.mig.profile, number=host)
        return SliceName(uuid=self.devices[host]) if self.strategy is Strategy.MIG else None

    @property
    def replica_models(self) -> tuple[tuple[str, str], ...]:
        """(replica name, base model) of every replica, host by host in device order."""
        return tuple(replica for host in self.hosts for replica in host.replicas)


class MetricsAccess(StrEnum):
    """Access to the metrics pages, which name every tenant."""

    OPERATOR = "operator"  # bearer of an operator key
    LOOPBACK = "loopback"  # the same, and every process on this machine
    OPEN = "open"  # every client


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Weights and bounds of the fair queue. The defaults come from `python -m benchmarks.simulator`."""

    locality_bonus_tokens: float = 4000.0  # lead of an adapter in a slot or in memory over one on disk
    aging_tokens_per_s: float = 500.0  # gain of a waiting request, for each second
    lower_band_share: float = 0.05  # part of the grants kept for each band below the highest that waits
    burst_share: float = 0.5  # part of a replica that a tenant which floods may fill beyond its fair share
    batch_share: float = 0.25  # part of what requests leave of a replica that lines of batches may fill
    slot_wait_s: float = 10.0  # a slot is drained for an adapter that has waited this long
    max_queued: int = 10_000  # requests of all tenants that wait in the gateway
    max_queued_bytes: int = 256 * 2**20  # their memory together: their bodies, and some beside


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Bounds of the metrics page."""

    max_models: int = 200  # models (tenant, name, version) with series of their own; the rest share `other`
    idle_after_s: float = 3600.0  # a model unused for this long leaves the page


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """The receiver of spans."""

    endpoint: str | None = None  # of an OTLP collector, HTTP, whole URL; None: nothing is traced
    sample_ratio: float = 1.0  # part of the requests, 0..1


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """Proxies that sign users in to the console: a user as their header has it, a group as `group:name`."""

    addresses: tuple[str, ...]  # of the proxies; networks in CIDR notation
    user_header: str  # in small letters
    groups_header: str | None = None  # None: groups are not read
    operators: tuple[str, ...] = ()
    tenants: dict[str, tuple[str, ...]] = field(default_factory=dict)  # who manages a tenant's adapters


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Settings of the gateway that belong to no tenant and no pool."""

    operator_key_hashes: frozenset[str] = frozenset()
    metrics_access: MetricsAccess = MetricsAccess.OPERATOR
    max_body_bytes: int = 4 * 2**20
    body_timeout_s: float = 30.0  # a client has this long to send its whole body
    heartbeat_s: float | None = None  # a stream that has sent nothing for so long gets a comment; None: off
    stall_timeout_s: float = 60.0  # a client that reads nothing for this long is cancelled
    request_timeout_s: float = 600.0  # an engine has this long to finish a request
    shutdown_grace_s: float = 30.0  # in-flight requests have this long to finish on SIGTERM
    log_requests: bool = True  # one line per request on standard error
    scheduler: SchedulerSettings = SchedulerSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    batches: BatchSettings = field(default_factory=BatchSettings)
    guards: Mapping[str, Guard] = field(default_factory=dict)  # by tenant
    trusted_proxies: TrustedProxies | None = None  # None: nobody is signed in by a proxy


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Storage and bounds of adapters and models, their versions, and API keys made at run time."""

    folder: str = ".tenantry"  # absolute once loaded; holds state.db, adapters/ and models/
    database: str | None = field(default=None, repr=False)  # URL, may hold a password; None: SQLite
    database_variable: str | None = None  # the URL's environment variable
    store_bytes: int | None = None  # all versions of adapters on disk together; None: no bound
    max_adapter_bytes: int = 2048 * 2**20  # one adapter, unpacked
    model_store_bytes: int | None = None  # all versions of whole models together; None: no bound
    max_model_bytes: int = 512 * 2**30  # one whole model, unpacked
    keep_versions: int = 3  # ready ones beside the live one

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the state database; may hold a password."""
        return self.database or f"sqlite:///{quote(self.folder)}/state.db"


@dataclass(frozen=True, slots=True)
class UsageSettings:
    """How long the usage ledger keeps records and sums."""

    keep_records_days: int = 30  # the record of each request
    keep_sums_days: int = 1100  # the sums of each day


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything declared in one fleet.yaml, checked and with its sources resolved."""

    base_models: dict[str, BaseModel]
    adapters: dict[str, Adapter]
    tenants: dict[str, Tenant]
    pools: dict[str, Pool]
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    state: StateSettings = field(default_factory=StateSettings)
    usage: UsageSettings = UsageSettings()
    prices: Prices | None = None  # None: nothing has a price

    @property
    def longest_request_s(self) -> float:
        """How long the gateway may have a request: in its queue, then on an engine."""
        waits = [tenant.caps.queue_timeout_s for tenant in self.tenants.values()]
        waits += [pool.scaling.hold_s for pool in self.pools.values() if pool.scaling is not None]
        return self.gateway.request_timeout_s + max(waits, default=Caps().queue_timeout_s)
