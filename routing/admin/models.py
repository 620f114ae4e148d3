"""The routes for whole models that take turns: their states, and an operator's orders. Operators only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from pydantic import BaseModel, Field

from fleet.fields import Name
from routing.admin.access import Caller, Operator
from routing.admin.bodies import QueryPart
from routing.admin.errors import refusals

router = APIRouter(prefix="/admin/v1/models", tags=["models"])

ModelName = Annotated[Name, InPath(description="Name of the base model.", examples=["llama-3-8b"])]


class ModelAtHostAnswer(BaseModel):
    """One model at one host."""

    pool: str = Field(examples=["mesh"])
    host: str = Field(examples=["mesh-0"])
    model: str = Field(examples=["llama-3-8b"])
    state: str = Field(
        description="`absent` (its files are fetched, or were refused), `on_disk`, `asleep` (its engine "
        "sleeps, on a GPU), `waking`, `awake`, `draining` (its turn is over), `failed` (it did not come "
        "awake, and is tried again), `quarantined` (it failed three times; wake it once the cause is gone) "
        "or `unknown` (its host does not answer).",
        examples=["awake"],
    )
    since_s: float = Field(description="How long it has been so.")
    running: int = Field(description="Sequences in flight here.")
    waiting: int = Field(description="Requests that wait for the model, at whichever host.")
    oldest_s: float = Field(description="How long the first of them has waited.")
    pinned: bool = Field(description="It stays awake.")
    held: str = Field(
        description="Why it does not come although requests wait: `switching`, `young`, `behind`, `draining` "
        "or `nowhere`; empty: it comes, or nothing waits.",
        examples=["behind"],
    )
    cost_s: float | None = Field(description="From the order to its first request; null: not measured yet.")
    way: str = Field(description="How it came awake last, as its host says.", examples=["cold"])
    took_s: dict[str, float] = Field(description="Seconds of each way, as its host measured them.")
    memory_bytes: int = Field(description="What it takes while awake, or asleep, as measured; 0: not yet.")
    awake_s: float = Field(description="Seconds that it was awake since the gateway's start.")
    reason: str = Field(description="Why it failed last, in the engine's or the host's words.")
    resting: dict[str, str] = Field(
        description="Ways to it that are not taken now, since they have failed, each with the last words.",
        examples=[{"reload": "shape mismatch (2x after qwen)"}],
    )


class TurnAnswer(BaseModel):
    """One event of the timeline."""

    at: float = Field(description="Unix time.")
    pool: str
    host: str
    model: str = Field(description="Which comes, or what the event is about where none comes.")
    instead_of: str | None = Field(description="The model that goes for it.")
    what: str = Field(
        description="`drains` (a turn has ended; what runs ends first), `goes_on` (that turn is open again), "
        "`begins` (the switch), `awake`, `failed` or `sleeps` (to disk, for nobody).",
        examples=["awake"],
    )
    why: str = Field(examples=["worth"])
    took_s: float
    way: str = Field(examples=["cold"])


class ModelList(BaseModel):
    """Every model at every host, and who was awake when."""

    data: list[ModelAtHostAnswer]
    turns: list[TurnAnswer] = Field(description="The last events, the newest first.")


class WakeAnswer(BaseModel):
    """What waking a model does, or would do, in one pool."""

    model: str
    pool: str
    host: str | None = Field(description="Where it comes; null: it must wait, or can come nowhere.")
    instead_of: str | None = Field(description="The model that goes for it.")
    wait_s: float | None = Field(description="Until it is awake, as expected; null: it can come nowhere.")
    why: str = Field(examples=["it would come now"])
    affected: dict[str, int] = Field(description="Of the model that goes: what runs, what waits.")


class WakeList(BaseModel):
    """One answer for each pool that has the model."""

    data: list[WakeAnswer]


class OrderAnswer(BaseModel):
    """The model as it is after an order."""

    data: list[ModelAtHostAnswer]


class WakeQuery(QueryPart):
    """Whether anything is done."""

    dry_run: bool = Field(False, description="Only say what it would do.")


@router.get("")
async def list_models(operator: Operator) -> ModelList:
    """List the models that take turns, with their states at each host, and the last turns. Operators only."""
    report = operator.services.management.models.report()
    turns = [{"at": event.at_s, **asdict(event)} for event in report.events]
    return ModelList.model_validate({"data": _rounded(report.models), "turns": turns})


@router.post("/{name}/wake", responses=refusals(404, 408, 409, 413, 415))
async def wake(name: ModelName, query: Annotated[WakeQuery, Query()], operator: Operator) -> WakeList:
    """Have a model come awake before all that only wait; returns at once. Operators only.

    A quarantined one is tried again. With `dry_run` nothing is done: the answer says who would go, and how
    long it would take.
    """
    models = operator.services.management.models
    told = models.forecast(name) if query.dry_run else await models.wake(name)
    return WakeList.model_validate({"data": [asdict(each) for each in told]})


@router.post("/{name}/sleep", responses=refusals(404, 408, 409, 413, 415))
async def sleep(name: ModelName, operator: Operator) -> OrderAnswer:
    """Have a model go to disk once what it runs has ended; returns at once. Operators only.

    It comes again when it is the turn of requests for it. 409 `pinned` for one that is to stay awake.
    """
    await operator.services.management.models.sleep(name)
    return _of(operator, name)


@router.post("/{name}/pin", responses=refusals(404, 408, 409, 413, 415))
async def pin(name: ModelName, operator: Operator) -> OrderAnswer:
    """Keep a model awake until it is unpinned, through restarts too, whatever the fleet says. Operators only.

    409 `no_place` where the other models of the pool could never come then.
    """
    await operator.services.management.models.pin(name, True)
    return _of(operator, name)


@router.delete("/{name}/pin", responses=refusals(404, 408, 413, 415))
async def unpin(name: ModelName, operator: Operator) -> OrderAnswer:
    """Let a model take turns again, one that the fleet pins too. Operators only."""
    await operator.services.management.models.pin(name, False)
    return _of(operator, name)


def _of(operator: Operator, name: str) -> OrderAnswer:
    return OrderAnswer(data=hosts_of(operator, name))


def hosts_of(caller: Caller, name: str) -> list[ModelAtHostAnswer]:
    """Describe a model at each of its hosts."""
    models = caller.services.management.models.report().models
    meant = _rounded([each for each in models if each.model == name])
    return [ModelAtHostAnswer.model_validate(each) for each in meant]


def _rounded(models: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(model).items()} for model in models
    ]
