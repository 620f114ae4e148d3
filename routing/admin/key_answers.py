"""The admin API's answers about keys; pure. No key and no hash of one."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet.types import NO_LIMITS
from routing.catalog.entries import ApiKey, DeclaredKey, KeyRole
from routing.usage.budget import BudgetStatus


class KeyLimitsAnswer(BaseModel):
    """Limits of one key, beside its tenant's; null: no such limit."""

    model_config = ConfigDict(from_attributes=True)

    max_concurrency: int | None = Field(description="Sequences in the gateway at once.")
    max_queued: int | None = Field(description="Requests that wait.")
    requests_per_minute: int | None
    tokens_per_minute: int | None
    monthly_tokens: int | None = Field(description="In a calendar month, UTC.")


class KeyAnswer(BaseModel):
    """A key made at run time; never the key itself."""

    id: str
    prefix: str = Field(description="How the key begins, to recognise it by.", examples=["tnt_3q2-7wAb"])
    role: KeyRole
    tenant: str | None
    note: str
    created_at: int = Field(description="Unix time.")
    expires_at: int | None = Field(description="Unix time; null: never.")
    revoked_at: int | None = Field(description="Unix time; null: it is not.")
    limits: KeyLimitsAnswer
    used_tokens: int | None = Field(
        description="Of `monthly_tokens`, and what runs, as expected; null: it has no such limit."
    )
    declared: Literal[False] = False


class NewKeyAnswer(KeyAnswer):
    """A key that was just made. It is in no other answer."""

    key: str = Field(description="The key; shown this once and kept nowhere.")


class DeclaredKeyAnswer(BaseModel):
    """A key of fleet.yaml. It has no id: it is changed in the file, and cannot be revoked here."""

    fingerprint: str = Field(
        description="How its SHA-256 begins; usage knows it by that.", examples=["9f86d081884c7d65"]
    )
    role: KeyRole
    tenant: str | None
    name: str = Field(description="What the file calls it; empty: nothing.")
    limits: KeyLimitsAnswer
    used_tokens: int | None = Field(
        description="Of `monthly_tokens`, and what runs, as expected; null: it has no such limit."
    )
    declared: Literal[True] = True


class KeyList(BaseModel):
    """Every key: those made at run time, and those of fleet.yaml."""

    object: Literal["list"] = "list"
    data: list[KeyAnswer] = Field(description="Made at run time; revoked and expired ones too.")
    declared: list[DeclaredKeyAnswer] = Field(description="Those of fleet.yaml.")


def key_answer(key: ApiKey, budget: BudgetStatus | None) -> KeyAnswer:
    """Describe a key, and how it stands in its budget where it has one."""
    return KeyAnswer(
        id=key.id,
        prefix=key.prefix,
        role=key.role,
        tenant=key.tenant,
        note=key.note,
        created_at=int(key.created_s),
        expires_at=_whole(key.expires_s),
        revoked_at=_whole(key.revoked_s),
        limits=KeyLimitsAnswer.model_validate(key.limits or NO_LIMITS),
        used_tokens=None if budget is None else budget.used,
    )


def declared_key_answer(key: DeclaredKey, budget: BudgetStatus | None) -> DeclaredKeyAnswer:
    """Describe a key of fleet.yaml, and how it stands in its budget where it has one."""
    return DeclaredKeyAnswer(
        fingerprint=key.fingerprint,
        role=key.role,
        tenant=key.tenant,
        name=key.name,
        limits=KeyLimitsAnswer.model_validate(key.limits or NO_LIMITS),
        used_tokens=None if budget is None else budget.used,
    )


def _whole(time_s: float | None) -> int | None:
    return None if time_s is None else int(time_s)
