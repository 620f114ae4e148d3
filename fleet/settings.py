"""The keys of fleet.yaml under `gateway`, `state` and `usage`: types, bounds and defaults.

The texts here are the JSON Schema's descriptions, which editors show.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fleet.content import OnFailure
from fleet.fields import Database, EnvSection, HeaderName, KeySection, Name, Network, Section, Source, User
from fleet.types import MetricsAccess

_BUCKET = r"^s3://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[A-Za-z0-9!_.=-]+)*$"


class SchedulerSection(Section):
    """How the fair queue decides, and how much may wait in it."""

    locality_bonus_tokens: float = Field(
        4000.0,
        ge=0,
        le=1_000_000_000,
        description="Lead of an adapter that a replica holds, in a slot or in memory, over one that it must "
        "read from disk, in tokens of service.",
    )
    aging_tokens_per_s: float = Field(
        500.0,
        ge=0,
        le=1_000_000_000,
        description="Tokens of service that a request gains on all others for each second it waits.",
    )
    lower_band_share: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Fraction of the grants kept for each waiting band below the highest one; 0: none.",
    )
    burst_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Fraction of a replica's batch and slots that a flooding tenant may fill beyond its fair "
        "share while no other tenant waits; 1: all of it, always.",
    )
    batch_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Fraction of what other requests leave of a replica's sequences and slots that lines of "
        "batches may fill.",
    )
    slot_wait_s: float = Field(
        10.0, gt=0, le=3600, description="How long an adapter waits before a slot is drained for it."
    )
    max_queued: int = Field(
        10_000, ge=1, le=10_000_000, description="Requests of all tenants that may wait in the gateway."
    )
    max_queued_mib: float = Field(
        256.0, gt=0, le=1_048_576, description="What they hold together in MiB: each its body and 16 KiB."
    )


class MetricsSection(Section):
    """How many models the metrics page shows."""

    max_models: int = Field(
        200,
        ge=1,
        le=10_000,
        description="Models (tenant, name, version) with series of their own; the rest share `other`.",
    )
    idle_after_s: float = Field(
        3600.0, ge=300, le=30 * 86400, description="An unused model leaves the page after this time."
    )


class TracingSection(Section):
    """Where spans of requests are sent."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/[^\s]*)?$")] | None = Field(
        None,
        description="URL of an OTLP collector's HTTP receiver, as http://host:4318/v1/traces; default: off.",
    )
    sample_ratio: float = Field(1.0, ge=0, le=1, description="Fraction of the requests that are traced.")


class BatchesSection(Section):
    """Files and batches of tenants."""

    max_file_mib: float = Field(200.0, gt=0, le=100_000, description="Largest file in MiB.")
    max_files: int = Field(1000, ge=1, le=1_000_000, description="Files of one tenant.")
    max_tenant_gib: float = Field(10.0, gt=0, le=1_000_000, description="All files of one tenant in GiB.")
    max_unfinished: int = Field(20, ge=1, le=10_000, description="Batches of one tenant that have not ended.")
    keep_days: int = Field(30, ge=2, le=3650, description="Days to keep files, and batches that have ended.")
    folder: Annotated[str, Field(pattern=_BUCKET)] | None = Field(
        None, description="s3://bucket/prefix for files; default: in the state folder."
    )
    key: EnvSection | None = Field(
        None,
        description="{env: NAME} of the variable with the key that files are encrypted with: 32 bytes in "
        "base64; default: they are not.",
    )


class TrustedProxiesSection(Section):
    """Proxies that sign users in to the console."""

    addresses: Annotated[tuple[Network, ...], Field(strict=False, min_length=1)] = Field(
        description="IP addresses or networks of the proxies; the header of anybody else is ignored."
    )
    user_header: HeaderName = Field(
        description="Header in which the proxy names the user, as X-Forwarded-Email. The proxy must remove "
        "what its own clients send under this name."
    )
    groups_header: HeaderName | None = Field(
        None,
        description="Header with the user's groups, separated by commas; default: groups are not read.",
    )
    operators: Annotated[tuple[User, ...], Field(strict=False)] = Field(
        (), description="Users, and groups as `group:name`, with the rights of an operator."
    )
    tenants: dict[Name, Annotated[tuple[User, ...], Field(strict=False)]] = Field(
        {}, description="Users and groups by the tenant whose adapters they manage."
    )


class GuardSection(Section):
    """Who looks at a tenant's prompts and answers before they go on: an endpoint, or a plugin."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/[^\s]*)?$", max_length=2048)] | None = Field(
        None, description="A moderation endpoint in OpenAI's form, as https://host/v1/moderations."
    )
    plugin: Name | None = Field(
        None, description="In place of url: an entry point of the group `tenantry.guards`, by its name."
    )
    on_failure: Annotated[OnFailure, Field(strict=False)] = Field(
        description="What becomes of a text where the guard fails or is too slow: allow or refuse."
    )
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)] | None = Field(
        None, description="Environment variable that holds the endpoint's key; default: none is sent."
    )
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="`model` of the endpoint; default: its own."
    )
    prompts: bool = Field(True, description="Look at prompts before an engine reads them.")
    answers: bool = Field(True, description="Look at answers before the client reads them.")
    timeout_s: float = Field(2.0, gt=0, le=60, description="Longest wait for one look.")
    hold_back_chars: int = Field(
        400, ge=1, le=100_000, description="Text of a stream that is held back for one look."
    )


class GatewaySection(Section):
    """Settings of the gateway that belong to no tenant and no pool."""

    operator_keys: Annotated[tuple[KeySection, ...], Field(strict=False)] = Field(
        (), description="Keys that may read the metrics and use the admin API."
    )
    metrics_access: Annotated[MetricsAccess, Field(strict=False)] = Field(
        MetricsAccess.OPERATOR, description="Access to the metrics pages, which name every tenant."
    )
    max_body_mib: float = Field(4.0, gt=0, le=1024, description="Largest request body in MiB.")
    body_timeout_s: float = Field(30.0, gt=0, le=3600, description="Time a client has to send its body.")
    stall_timeout_s: float = Field(
        60.0, gt=0, le=3600, description="How long a client may read nothing before its request is cancelled."
    )
    heartbeat_s: float | None = Field(
        None,
        ge=1,
        le=3600,
        description="A stream that has sent nothing for so long gets a sign of life; default: never.",
    )
    request_timeout_s: float = Field(
        600.0, gt=0, le=86400, description="Time an engine has to finish a request."
    )
    shutdown_grace_s: float = Field(
        30.0, ge=0, le=3600, description="Time requests in flight have to finish on SIGTERM."
    )
    log_requests: bool = Field(True, description="One line per request on standard error.")
    scheduler: SchedulerSection = Field(SchedulerSection(), description="Settings of the fair queue.")
    metrics: MetricsSection = Field(MetricsSection(), description="How many models the metrics page shows.")
    tracing: TracingSection = Field(TracingSection(), description="Where spans of requests are sent.")
    batches: BatchesSection = Field(BatchesSection(), description="Files and batches of tenants.")
    guards: dict[Name, GuardSection] = Field(
        {}, description="Who looks at prompts and answers, by tenant; default: nobody."
    )
    trusted_proxies: TrustedProxiesSection | None = Field(
        None, description="Proxies that sign users in to the console; default: none, keys alone."
    )


class StateSection(Section):
    """Where adapters and API keys made at run time are kept."""

    folder: Source = Field(
        "${TENANTRY_STATE:-.tenantry}",
        description="Folder of the state database, and of adapters' and models' versions.",
    )
    database: Database | None = Field(
        None,
        description="postgresql+psycopg://user@host/name, or {env: NAME} of the variable that holds it; "
        "default: SQLite in the folder.",
    )
    store_gib: float | None = Field(
        None, gt=0, le=1_000_000, description="Disk budget for adapter versions in GiB; default: no bound."
    )
    max_adapter_mib: float = Field(
        2048.0, gt=0, le=1_000_000, description="Largest adapter in MiB, unpacked."
    )
    model_store_gib: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Disk budget for whole models that the gateway fetched, in GiB; default: no bound.",
    )
    max_model_gib: float = Field(
        512.0, gt=0, le=1_000_000, description="Largest whole model in GiB, unpacked."
    )
    keep_versions: int = Field(
        3, ge=0, le=1000, description="Ready versions kept beside the live one, for rollbacks."
    )


class UsageSection(Section):
    """How long the usage ledger keeps records and sums."""

    keep_records_days: int = Field(30, ge=2, le=3650, description="Days to keep the record of each request.")
    keep_sums_days: int = Field(
        1100,
        ge=62,
        le=36500,
        description="Days to keep daily sums, which queries and budgets read.",
    )
