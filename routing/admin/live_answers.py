"""The live snapshot as an answer of the admin API; pure.

Pools are shown as `routing.observing.live.snapshot` declares them; models' figures are put together here.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, Field

from routing.admin.scheduler_answers import DecisionAnswer, Rounded, Shape, decision_answer
from routing.observing.live.figures import BUCKET_S, BUCKETS, WINDOW, Figures1m
from routing.observing.live.snapshot import ModelHistory, ModelView, PoolView, Snapshot
from routing.observing.live.verdict import LimitSource, Verdict


class FiguresAnswer(Shape):
    """What ended in the last minute."""

    requests: int
    requests_per_s: Rounded
    tokens_per_s: Rounded = Field(description="Completion tokens.")
    failed: int = Field(description="Through the fault of engine, adapter or fleet.")
    late: int = Field(description="Expired in the queue, or refused since they would have waited too long.")
    capped: int = Field(description="Refused by the tenant's own caps (429).")
    error_rate: Rounded = Field(description="Part that failed or was late, 0..1.")
    first_token_p50_s: Rounded | None = Field(
        description="Arrival to first token, of streams; null: none ended. Quantiles are within 4.4 %."
    )
    first_token_p99_s: Rounded | None
    queue_p99_s: Rounded | None = Field(description="Arrival to the grant of a replica.")
    answer_p50_s: Rounded | None = Field(description="Arrival to the last byte.")
    answer_p99_s: Rounded | None


class ModelAnswer(FiguresAnswer):
    """One model of one tenant: its last minute, and its requests that wait now."""

    tenant: str = Field(examples=["example"])
    model: str = Field(description="As the tenant calls it.", examples=["support"])
    adapter: str | None = Field(description="null: the base model itself.")
    pool: str
    verdict: Verdict = Field(description="failing, slow or green; docs/console.md says by what rule.")
    reason: str = Field(description="Why, for people; empty where all is well.")
    limit_s: Rounded = Field(description="A first token later than this is slow.")
    limit_source: LimitSource = Field(
        description="objective: the pool's `slo.ttft_s`. usual: the model's own past. default: nothing is "
        "known of it yet."
    )
    usual_s: Rounded | None = Field(description="Its usual first token; null: not known yet.")
    queued: int = Field(description="Requests that wait now.")
    oldest_s: Rounded = Field(description="How long the oldest of them has waited.")


class HistoryAnswer(Shape):
    """One model over the last minutes, a value for each bucket of time, the oldest first."""

    tenant: str
    model: str
    first_token_p99_s: list[float | None]
    queue_p99_s: list[float | None]
    requests: list[int]
    errors: list[int] = Field(description="Failed or late.")
    completion_tokens: list[int]


class LiveSnapshot(BaseModel):
    """Every model and replica at one moment."""

    at: Rounded = Field(description="Unix time.")
    window_s: float = Field(WINDOW * BUCKET_S, description="What current figures are made of.")
    total: FiguresAnswer
    queued: int = Field(description="Requests that wait, of all models.")
    models: list[ModelAnswer] = Field(description="The worst first.")
    models_left_out: int = Field(description="Better ones that are not in the list.")
    other: FiguresAnswer | None = Field(description="Models too many to have figures of their own, together.")
    pools: list[PoolView]


class LiveHistory(BaseModel):
    """The shown models' last minutes."""

    ends_at: Rounded = Field(description="Unix time at which the last bucket ends.")
    bucket_s: float = BUCKET_S
    buckets: int = BUCKETS
    models: list[HistoryAnswer]


class LiveDecisions(BaseModel):
    """What the scheduler has decided since the last time."""

    data: list[DecisionAnswer] = Field(description="The newest first; grants are left out before others.")
    left_out: int


class LiveAnswer(LiveSnapshot):
    """The whole snapshot: models, pools, the last minutes, the last decisions."""

    history: LiveHistory
    decisions: LiveDecisions


def snapshot_of(snapshot: Snapshot, at_s: float) -> LiveSnapshot:
    """Describe a snapshot that was taken at this Unix time."""
    return LiveSnapshot(
        at=at_s,
        total=FiguresAnswer.model_validate(snapshot.total),
        queued=snapshot.waiting,
        models=[_model(view) for view in snapshot.models],
        models_left_out=snapshot.models_left_out,
        other=None if snapshot.other is None else FiguresAnswer.model_validate(snapshot.other),
        pools=list(snapshot.pools),
    )


def history_of(models: Iterable[ModelHistory], now_s: float, at_s: float) -> LiveHistory:
    """Describe models' last minutes, asked for at this monotonic and this Unix time."""
    return LiveHistory(
        ends_at=at_s - now_s % BUCKET_S,
        models=[
            HistoryAnswer.model_construct(  # numbers of our own, thousands of them
                tenant=one.tenant,
                model=one.model,
                first_token_p99_s=list(one.history.first_token_p99_s),
                queue_p99_s=list(one.history.queue_p99_s),
                requests=list(one.history.requests),
                errors=list(one.history.errors),
                completion_tokens=list(one.history.completion_tokens),
            )
            for one in models
        ],
    )


def decisions_of(snapshot: Snapshot) -> LiveDecisions:
    """Describe a snapshot's decisions."""
    data = [decision_answer(decision, snapshot.now_s) for decision in snapshot.decisions]
    return LiveDecisions(data=data, left_out=snapshot.decisions_left_out)


def _model(view: ModelView) -> ModelAnswer:
    figures: Figures1m = view.figures
    return ModelAnswer(
        **FiguresAnswer.model_validate(figures).model_dump(),
        tenant=view.tenant,
        model=view.model,
        adapter=view.adapter,
        pool=view.pool,
        verdict=view.verdict,
        reason=view.reason,
        limit_s=view.limit.seconds,
        limit_source=view.limit.source,
        usual_s=figures.usual_s,
        queued=view.waiting.requests,
        oldest_s=view.waiting.oldest_s,
    )
