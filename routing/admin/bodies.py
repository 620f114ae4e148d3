"""Bodies and queries of the admin API. Types and bounds are strict; unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from adapters.states import VersionState
from fleet.fields import MOST, Name, Source
from routing.catalog.entries import KeyRole, RolloutPlan

MAX_PAGE = 1000
_YEAR_S = 365 * 24 * 3600

Tenant = Annotated[
    Name | None,
    Field(
        description="Whose adapter; an operator names it, for a tenant's key it is known.",
        examples=["example"],
    ),
]
Sha256 = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-fA-F]{64}$"),
    AfterValidator(str.lower),
    Field(
        description="Promised sha256 in hex, of the archive or of adapter_model.safetensors.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ),
]
BaseModelName = Annotated[
    Name | None,
    Field(
        description="Base model it was trained on; may be left out where the tenant has only one.",
        examples=["llama-3-8b"],
    ),
]
AdapterSource = Annotated[
    Source,
    Field(
        description="Where its files are: hf://, s3://, gs:// or an https:// archive, as the tenant may.",
        examples=["hf://example/support-lora"],
    ),
]
Number = Annotated[int, Field(ge=1, le=2**31 - 1, description="Number of the version.", examples=[2])]


class Body(BaseModel):
    """A JSON body."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class QueryPart(BaseModel):
    """The query parameters of a route; text, so that numbers are read from it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Plan(BaseModel):
    """How a new version takes over; what is left out has the default."""

    weight: float | None = Field(
        None, gt=0, le=1, description="Part of the requests it gets at first; default 0.1.", examples=[0.1]
    )
    min_requests: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Requests before it is judged; default 50, or `promote_after` where that is less.",
    )
    promote_after: int | None = Field(
        None, ge=1, le=10**9, description="Requests after which it takes over; default: when told to."
    )
    max_error_rise: float | None = Field(
        None, ge=0, le=1, description="Allowed rise of the error rate; default 0.02."
    )
    max_empty_rise: float | None = Field(
        None, ge=0, le=1, description="Allowed rise of the rate of empty answers; default 0.05."
    )
    max_latency_ratio: float | None = Field(
        None, ge=1, le=1000, description="Allowed ratio of the mean time per request; default 1.5."
    )

    def plan(self) -> RolloutPlan:
        """Return the plan, defaults filled in."""
        given = self.model_dump(include=set(_Plan.model_fields), exclude_none=True)
        if self.promote_after is not None and self.min_requests is None:
            given["min_requests"] = min(self.promote_after, RolloutPlan().min_requests)
        return RolloutPlan(**given)

    @property
    def has_plan(self) -> bool:
        """Whether anything of a plan was given."""
        return any(getattr(self, name) is not None for name in _Plan.model_fields)


class RolloutSpec(Body, _Plan):
    """How a new version takes over. Without one it answers everything as soon as it is ready."""


class NewVersionBody(Body):
    """A version whose files the gateway fetches."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"source": "hf://example/support-lora", "rollout": {"weight": 0.1}}}
    )

    source: AdapterSource
    base_model: BaseModelName = None
    sha256: Sha256 | None = None
    rollout: RolloutSpec | None = None


class NewAdapterBody(NewVersionBody):
    """An adapter and its first version."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "support", "source": "hf://example/support-lora"}}
    )

    name: Annotated[Name, Field(description="Name of the adapter.", examples=["support"])]
    tenant: Tenant = None


class PromoteBody(Body):
    """Which version takes over."""

    version: Number | None = Field(
        None, description="Number of the version; default: what is being rolled out."
    )


class RolloutBody(RolloutSpec):
    """Which version gets a part of the traffic, and how it goes on."""

    model_config = ConfigDict(json_schema_extra={"example": {"version": 2, "weight": 0.25}})

    version: Number


class KeyLimitsBody(Body):
    """Limits of one key, beside its tenant's. Those that are not given stay as they are."""

    max_concurrency: int | None = Field(None, ge=1, le=MOST, description="Sequences at once; null: no limit.")
    max_queued: int | None = Field(None, ge=0, le=MOST, description="Requests that wait; null: no limit.")
    requests_per_minute: int | None = Field(None, ge=1, le=MOST, description="null: no limit.")
    tokens_per_minute: int | None = Field(None, ge=1, le=MOST, description="null: no limit.")
    monthly_tokens: int | None = Field(
        None, ge=1, le=MOST, description="In a calendar month, UTC; null: no limit."
    )


class KeyChangeBody(Body):
    """What of a key is changed."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"limits": {"max_concurrency": 4, "monthly_tokens": None}}}
    )

    limits: KeyLimitsBody

    @model_validator(mode="after")
    def _changes_something(self) -> KeyChangeBody:
        if not self.limits.model_fields_set:
            raise ValueError("`limits` names no limit to change")
        return self


class NewKeyBody(Body):
    """A key to make."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"role": "adapters", "tenant": "example", "note": "CI", "expires_in_s": 2592000}
        }
    )

    role: KeyRole = Field(
        strict=False,
        description="inference calls the tenant's models, adapters manages its adapters, operator all.",
    )
    tenant: Name | None = Field(None, description="Whose key; none for an operator's.", examples=["example"])
    note: str = Field("", max_length=200, description="What it is for; shown in lists.", examples=["CI"])
    expires_in_s: float | None = Field(
        None, ge=1, le=20 * _YEAR_S, description="Seconds from now until it opens nothing; default: never."
    )
    limits: KeyLimitsBody = Field(
        KeyLimitsBody(), description="Only for a key that calls models; default: its tenant's alone."
    )

    @model_validator(mode="after")
    def _owner_fits_role(self) -> NewKeyBody:
        if (self.role is KeyRole.OPERATOR) != (self.tenant is None):
            raise ValueError("an operator's key has no tenant, every other key needs one")
        if not self.note.isprintable():
            raise ValueError("`note` holds characters that cannot be printed")
        if self.role is not KeyRole.INFERENCE and self.limits != KeyLimitsBody():
            raise ValueError("only a key that calls models has limits")
        return self


class LoadBody(BaseModel):
    """vLLM's body for loading an adapter; fields that vLLM would ignore are ignored."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={"example": {"lora_name": "support", "lora_path": "hf://example/support-lora"}},
    )

    lora_name: Annotated[Name, Field(description="Name of the adapter.")]
    lora_path: AdapterSource
    load_inplace: bool = Field(
        False, description="A new version of an adapter that is there; the old one answers until it is ready."
    )
    is_3d_lora_weight: Literal[False] = Field(False, description="Not supported.")


class UnloadBody(BaseModel):
    """vLLM's body for unloading an adapter; fields that vLLM would ignore are ignored."""

    model_config = ConfigDict(strict=True, json_schema_extra={"example": {"lora_name": "support"}})

    lora_name: Annotated[Name, Field(description="Name of the adapter.")]


class TenantQuery(QueryPart):
    """Whose adapter is meant."""

    tenant: Tenant = None


class ListQuery(TenantQuery):
    """Which adapters are listed."""

    state: VersionState | None = Field(None, description="Only adapters with a version in this state.")
    after: str | None = Field(None, max_length=200, description="`next` of the page before.")
    limit: int = Field(100, ge=1, le=MAX_PAGE, description="Adapters on a page.")


class UploadQuery(TenantQuery, _Plan):
    """What goes with an upload; a rollout begins where any of its parameters is given."""

    base_model: BaseModelName = None
    sha256: Sha256 | None = None
