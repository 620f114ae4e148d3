"""The values the routing layer passes around: what a request is for, what it takes, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from fleet.money import Price
from fleet.types import KeyLimits, account_of


class Outcome(StrEnum):
    """How a request ended; every request ends in exactly one."""

    COMPLETED = "completed"
    REJECTED = "rejected"  # it was not to run
    EXPIRED = "expired"  # queued too long
    CANCELLED = "cancelled"  # the client left
    FAILED = "failed"  # engine fault


class FallbackReason(StrEnum):
    """Why a model's fallback answered in its place."""

    QUARANTINED = "quarantined"  # all its versions were refused
    NOT_READY = "not_ready"  # it has no version yet
    NO_REPLICA = "no_replica"  # none that serves it is ready
    OVERLOADED = "overloaded"  # it would have come too late


@dataclass(frozen=True, slots=True)
class Target:
    """What one model name means for one tenant."""

    tenant: str
    model: str  # the tenant's alias for it
    adapter: str | None  # the adapter's name; None: the base model itself
    base_model: str
    pool: str
    version: int | None = None  # of the adapter
    adapter_id: str | None = None  # the name engines know that version by; slots and leases go by it
    adapter_limit: int | None = (
        None  # sequences of a declared adapter, all tenants together; None: no such cap
    )
    generation: int = 0  # of the tenant
    asked: str = field(default="", compare=False)  # what the client calls it, where not by its alias
    price: Price | None = field(default=None, compare=False)  # for this tenant; None: it has no price
    fallback: str | None = field(default=None, compare=False)  # the model that answers where this one cannot
    fallback_of: str = field(default="", compare=False)  # the alias in whose place it answers
    fallback_reason: FallbackReason | None = field(default=None, compare=False)
    # Made once: each request asks for them many times.
    account: str = field(init=False, compare=False)  # the name under which the tenant's usage is counted
    answers_as: str = field(init=False, compare=False)  # the name that answers have: the client's own
    engine_model: str = field(init=False, compare=False)  # the name the engine knows it by

    def __post_init__(self) -> None:
        account = account_of(self.tenant, self.generation) if self.generation else self.tenant
        object.__setattr__(self, "account", account)
        object.__setattr__(self, "answers_as", self.asked or self.model)
        object.__setattr__(self, "engine_model", self.adapter_id or self.base_model)


@dataclass(slots=True, unsafe_hash=True)  # nobody changes one; a frozen one takes six times as long to make
class Request:
    """What the scheduler needs to know of one request."""

    id: str
    target: Target
    sequences: int  # choices times prompts: what it occupies in an engine
    prompt_tokens: int  # estimated, see `prompts`
    arrived_s: float  # monotonic
    failed_on: frozenset[str] = frozenset()  # replicas that broke under it
    max_completion_tokens: int | None = None  # of each sequence, where the client says
    size_bytes: int = 0  # of the body, while it waits in memory
    key: str = ""  # id of the API key that it came with; empty: with none
    key_limits: KeyLimits | None = None  # that key's, as they were then; None: it has none
    user: str = ""  # of the tenant, as it names them; empty: nobody was named
    spare: bool = False  # a line of a batch: it runs only on room to spare, and waits nowhere


@dataclass(slots=True)
class Record:
    """The outcome and figures of one request; written once, when it is settled."""

    request_id: str
    target: Target
    outcome: Outcome
    status: int  # HTTP status sent, or 499 if the client left first
    reason: str = ""  # error code or cap; empty for a completed request
    replica: str | None = None
    stream: bool = False
    queue_s: float | None = None  # arrival to the last grant
    first_byte_s: float | None = None  # arrival to the first byte of the answer
    total_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, found in the engine's prefix cache
    estimated: bool = False  # not all tokens were counted by the engine
    engine_s: float = 0.0  # its share of engines' time: half of it while two sequences run
    slot_s: float = 0.0  # its share of its adapter's slots' time
    switch_s: float = 0.0  # its share of the switches that it waited for
    attempts: int = 0  # replicas asked, one after the other or at once
    hedged: bool = False  # two were asked at once
    waits_for: str | None = None  # why it had to wait: a `WaitReason`; None if it did not
    picked: str | None = None  # why its replica was chosen: an `Affinity`, or `only`
    failed_on: frozenset[str] = frozenset()  # replicas that broke before they answered
    explanation: str = ""  # the message to the client, if its request was not at fault
    retry_after_s: float | None = None  # delay in the same answer
    trace_id: str | None = None  # W3C; None: neither the client nor the gateway traces it
    traced: bool = False  # its spans are sent to a collector
    ended_at_s: float = 0.0  # Unix time
    key: str = ""  # id of the API key
    cost: int | None = None  # in units of a cost, by the prices at its arrival; None: its model had none
    of_batch: bool = False  # the batch keeps it, and gives it to the ledger once the answer is safe

    def set_cost(self) -> None:
        """Compute what it cost, once all else is known."""
        price = self.target.price
        if price is not None:
            tokens = (self.prompt_tokens, self.completion_tokens, self.cached_tokens)
            self.cost = price.cost(*tokens, slot_s=self.slot_s, engine_s=self.engine_s)

    @property
    def token_s(self) -> float | None:
        """Time per output token after the first; only a stream shows it."""
        if not self.stream or self.first_byte_s is None or self.completion_tokens < 2:
            return None
        return (self.total_s - self.first_byte_s) / (self.completion_tokens - 1)
